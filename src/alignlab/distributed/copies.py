"""Whole weights for a while where a strategy keeps them in parts: a copy of a module that is cut up, and a frozen
module that every rank keeps its part of.

All ranks enter and leave the contexts of this file together.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from alignlab.distributed.collectives import all_gather, rank, world_size
from alignlab.distributed.shards import gathered


class WholeCopy:
    """A second module like `source`, with weights only within `filled`: those that the source has then, whole.

    To be made before a strategy cuts the source up. Weights that the copy is given besides stay with it.
    """

    def __init__(self, source: nn.Module) -> None:
        self.source = source
        empty = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), False) for p in source.parameters()}
        shared = {id(buffer): buffer for buffer in source.buffers()}
        self.module = copy.deepcopy(source, empty | shared).eval()
        self._empty = dict(self.module.named_parameters(remove_duplicate=False))
        self._depth = 0

    @property
    def num_bytes(self) -> int:
        """What the weights take while they are there."""
        return sum(p.numel() * p.element_size() for p in {id(p): p for p in self._empty.values()}.values())

    @contextmanager
    def filled(self) -> Iterator[nn.Module]:
        """Within: the copy holds the source's present weights, gathered parameter by parameter."""
        self._depth += 1
        if self._depth == 1:
            self._fill()
        try:
            yield self.module
        finally:
            self._depth -= 1
            if not self._depth:
                for name, parameter in self._empty.items():
                    _put(self.module, name, parameter)

    @torch.no_grad()
    def _fill(self) -> None:
        values: dict[int, nn.Parameter] = {}
        for name, parameter in self.source.named_parameters(remove_duplicate=False):
            if id(parameter) not in values:
                values[id(parameter)] = nn.Parameter(gathered(parameter).detach(), False)
            _put(self.module, name, values[id(parameter)])
        for name, buffer in self.source.named_buffers(remove_duplicate=False):
            place, _, key = name.rpartition(".")
            self.module.get_submodule(place)._buffers[key] = buffer


class Spread:
    """A frozen module of whose weights every rank keeps its part; they are whole within `gathered`."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        names: dict[int, list[str]] = {}
        for name, parameter in module.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), []).append(name)
        self._parts: list[tuple[list[str], nn.Parameter, Tensor]] = []
        for parameter in list(module.parameters()):
            empty = nn.Parameter(torch.empty_like(parameter, device="meta"), False)
            self._parts.append((names[id(parameter)], empty, _part(parameter.detach())))
        self._empty()
        self._depth = 0

    @property
    def num_bytes(self) -> int:
        """What the weights take while they are there."""
        return sum(empty.numel() * part.element_size() for _, empty, part in self._parts)

    @contextmanager
    def gathered(self, device: torch.device, dtype: torch.dtype) -> Iterator[nn.Module]:
        """Within: the module is whole on a device, in a dtype."""
        self._depth += 1
        if self._depth == 1:
            self._fill(device, dtype)
        try:
            yield self.module
        finally:
            self._depth -= 1
            if not self._depth:
                self._empty()

    def _fill(self, device: torch.device, dtype: torch.dtype) -> None:
        self._parts = [(names, empty, part.to(device, dtype)) for names, empty, part in self._parts]
        for names, empty, part in self._parts:
            whole = nn.Parameter(all_gather(part)[: empty.numel()].view(empty.shape), False)
            for name in names:
                _put(self.module, name, whole)
        for part in self.module.modules():
            for key, buffer in part._buffers.items():
                part._buffers[key] = None if buffer is None else buffer.to(device)

    def _empty(self) -> None:
        for names, empty, _ in self._parts:
            for name in names:
                _put(self.module, name, empty)


def _part(whole: Tensor) -> Tensor:
    """This rank's elements, as many on every rank."""
    size = -(-whole.numel() // world_size())
    part = whole.new_zeros(size)
    own = whole.flatten()[rank() * size : (rank() + 1) * size]
    part[: own.numel()] = own
    return part


def _put(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    place, _, key = name.rpartition(".")
    module.get_submodule(place)._parameters[key] = parameter
