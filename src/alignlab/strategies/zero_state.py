"""Weights and optimizer states of a ZeRO-partitioned model, whole: read from all ranks, written back to each rank's
part.

Every function is a collective: all ranks call it in the same order. `optimizer` is ZeRO's, None in evaluation. Frozen
parameters (a momentum teacher) count as weights. DeepSpeed has functions of this kind that fail before the first step
or where a tensor doesn't divide by the ranks.
"""

from collections.abc import Callable, Iterator, Set
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from alignlab.distributed.collectives import rank_zero
from alignlab.distributed.shards import wait_for_fetches
from alignlab.strategies.optimizer_state import check_groups

UPDATE = "update"  # a step's change, among the optimizer's states while it is put together


def weights(module: nn.Module, optimizer: Any) -> dict[str, Tensor]:
    """Parameters, as exact as the optimizer keeps them, and persistent buffers: on the host of rank zero, {}
    elsewhere.
    """
    state = {}
    wait_for_fetches(module)
    for name, parameter in module.named_parameters(remove_duplicate=False):
        value = _whole(optimizer, parameter)
        if rank_zero():
            state[name] = value.detach().cpu().clone()
    if not rank_zero():
        return {}
    buffers = {name: value for name, value in module.state_dict().items() if name not in state}
    return state | {name: value.detach().cpu().clone() for name, value in buffers.items()}


def load_weights(module: nn.Module, optimizer: Any, state: dict[str, Tensor], optional: Set[str] = frozenset()) -> None:
    """The inverse of `weights`; `optional` ones may be missing. Raises ValueError if names or shapes differ."""
    own = dict(module.named_parameters(remove_duplicate=False))
    buffers = {name: value for name, value in module.state_dict().items() if name not in own}
    wrong = (set(own) ^ (set(state) - set(buffers))) - (optional - set(state)) | {
        name for name, p in own.items() if name in state and _shape(p) != state[name].shape
    }
    if wrong:
        raise ValueError(f"the checkpoint doesn't fit the model: {', '.join(sorted(wrong)[:3])}")
    with torch.no_grad():
        for name, parameter in own.items():
            if name not in state:
                continue
            value = state[name].to(parameter.device)
            if hasattr(parameter, "ds_id"):
                with _gathered(parameter, modifier_rank=0):
                    if rank_zero():
                        parameter.copy_(value)
            else:
                parameter.copy_(value)
            if parameter.requires_grad and optimizer is not None:
                _write(optimizer, parameter, value)
        for name, buffer in buffers.items():
            if name in state:
                buffer.copy_(state[name])


def optimizer_state(optimizer: Any, order: list[list[nn.Parameter]]) -> dict[str, Any]:
    """The state of a ZeRO optimizer as a plain torch optimizer would write it (whole on rank zero, {} elsewhere).

    `order` holds the parameters group by group as the plain optimizer was given them.
    """
    state: dict[int, dict[str, Tensor]] = {}
    groups, number = [], 0
    for index, parameters in enumerate(order):
        settings = {k: v for k, v in optimizer.optimizer.param_groups[index].items() if k != "params"}
        groups.append({**settings, "params": list(range(number, number + len(parameters)))})
        flat = _flat_state(optimizer, index)
        for parameter in parameters:
            entry = {}
            for key, value in flat.items():
                whole = value if _is_scalar(value) else _read(optimizer, parameter, key)
                entry[key] = whole.detach().cpu().clone() if isinstance(whole, Tensor) else whole
            if rank_zero() and entry:
                state[number] = entry
            number += 1
    return {"state": state, "param_groups": groups} if rank_zero() else {}


def load_optimizer_state(optimizer: Any, order: list[list[nn.Parameter]], state: dict[str, Any]) -> None:
    """The inverse of `optimizer_state`. Raises ValueError if the groups differ."""
    check_groups(state, [len(parameters) for parameters in order])
    number = 0
    for index, parameters in enumerate(order):
        settings = {k: v for k, v in state["param_groups"][index].items() if k != "params"}
        optimizer.optimizer.param_groups[index].update(settings)
        first = state["state"].get(number, {})
        for flat in _flat_parameters(optimizer, index):
            optimizer.optimizer.state[flat] = {
                key: value.clone() if _is_scalar(value) else torch.zeros_like(flat) for key, value in first.items()
            }
        number += len(parameters)
    number = 0
    for parameters in order:
        for parameter in parameters:
            for key, value in state["state"].get(number, {}).items():
                if not _is_scalar(value):
                    _write(optimizer, parameter, value, key)
            number += 1


def _gathered(parameter: nn.Parameter, **settings: int) -> AbstractContextManager:
    """DeepSpeed's context in which a parameter of stage 3 is whole; imported where it is at work, since the extra may
    be missing.
    """
    import deepspeed

    return deepspeed.zero.GatheredParameters([parameter], **settings)


def matrices(optimizer: Any, flat: Tensor, update: Tensor) -> Iterator[tuple[Tensor, Callable[[Tensor], None]]]:
    """`alignlab.optim.muon.Assemble` for ZeRO: a flat piece holds parts of many matrices, and each rank another one."""
    state = optimizer.optimizer.state[flat]
    state[UPDATE] = update
    try:
        for parameter in _parameters_of(optimizer, flat):
            whole = _read(optimizer, parameter, UPDATE).view(_shape(parameter))
            yield whole, partial(_write, optimizer, parameter, key=UPDATE)
    finally:
        del state[UPDATE]


def _parameters_of(optimizer: Any, flat: Tensor) -> list[nn.Parameter]:
    """All parameters of whose joint row `flat` is this rank's piece, in their order."""
    if hasattr(optimizer, "fp32_partitioned_groups_flat"):
        flats, groups = optimizer.fp32_partitioned_groups_flat, optimizer.fp16_groups
    else:
        flats, groups = optimizer.single_partition_of_fp32_groups, optimizer.bit16_groups
    return next(list(group) for own, group in zip(flats, groups, strict=True) if own is flat)


def _whole(optimizer: Any, parameter: nn.Parameter) -> Tensor:
    if parameter.requires_grad and optimizer is not None:
        return _read(optimizer, parameter)
    if hasattr(parameter, "ds_id"):
        with _gathered(parameter):
            return parameter.detach().clone()
    return parameter


def _read(optimizer: Any, parameter: nn.Parameter, key: str | None = None) -> Tensor:
    """A parameter's exact value, or one of its optimizer states, from all ranks' pieces."""
    if hasattr(parameter, "ds_id"):
        return optimizer.get_full_hp_param(parameter, key)
    whole = torch.zeros(parameter.numel(), device=parameter.device)
    for piece, where in _piece(optimizer, parameter, key):
        whole[where].copy_(piece)
    dist.all_reduce(whole, group=parameter._dp_group)
    return whole.view_as(parameter)


def _write(optimizer: Any, parameter: nn.Parameter, value: Tensor, key: str | None = None) -> None:
    """The inverse of `_read`: each rank keeps its own piece."""
    value = value.flatten().to(parameter.device, torch.float32)
    if hasattr(parameter, "ds_id"):
        piece, _ = optimizer._get_fp32_opt_state_partition(parameter, release_swap_buffers=False, optim_state_key=key)
        start = piece.numel() * optimizer._get_param_partition_rank(parameter)
        own = value[start : start + piece.numel()]  # the last ranks' pieces are padded
        piece[: own.numel()].copy_(own)
        return
    for piece, where in _piece(optimizer, parameter, key):
        piece.copy_(value[where])


def _piece(optimizer: Any, parameter: nn.Parameter, key: str | None) -> Iterator[tuple[Tensor, slice]]:
    """Stages 1 and 2: this rank's piece of a parameter or its state, and where it lies in it;
    nothing if it has none.
    """
    mapping = parameter._hp_mapping
    if mapping is None:
        return
    index = next(i for i, group in enumerate(optimizer.bit16_groups) if any(parameter is p for p in group))
    flat = optimizer.single_partition_of_fp32_groups[index]
    source = flat if key is None else optimizer.optimizer.state[flat][key]
    here, there = mapping.hp_fragment_address, mapping.lp_fragment_address
    yield source.narrow(0, here.start, here.numel), slice(there.start, there.start + there.numel)


def _shape(parameter: nn.Parameter) -> torch.Size:
    return getattr(parameter, "ds_shape", parameter.shape)


def _flat_parameters(optimizer: Any, index: int) -> list[Tensor]:
    """The flattened pieces of a parameter group that this rank steps."""
    if hasattr(optimizer, "fp32_partitioned_groups_flat"):  # stage 3: a group may be cut into several
        return [
            flat
            for number, flat in enumerate(optimizer.fp32_partitioned_groups_flat)
            if optimizer.sub_group_to_group_id[number] == index
        ]
    return [optimizer.single_partition_of_fp32_groups[index]]


def _flat_state(optimizer: Any, index: int) -> dict[str, Tensor]:
    pieces = _flat_parameters(optimizer, index)
    return optimizer.optimizer.state.get(pieces[0], {}) if pieces else {}


def _is_scalar(value: object) -> bool:
    return not isinstance(value, Tensor) or value.ndim == 0
