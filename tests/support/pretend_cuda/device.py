"""The device itself: a tensor class whose operations run on the CPU and are judged as a CUDA device would.

`stub.install()` must have been called. `entered()` switches it on for this thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pretend_cuda.log import BLOCKING, COPY, DTYPES, EARLY, MIXED, TO_HOST, WAIT, note

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)
on_the_way: list[torch.UntypedStorage] = []  # to the host, until the host waits


class CudaTensor(torch.Tensor):
    """Says `cuda:0`; its numbers are in `host`."""

    host: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host: torch.Tensor) -> CudaTensor:
        assert not isinstance(host, CudaTensor)
        layout = {"strides": host.stride(), "storage_offset": host.storage_offset(), "layout": host.layout}
        with torch.inference_mode(host.is_inference()):  # a view of an ordinary tensor is an ordinary one even there
            made = torch.Tensor._make_wrapper_subclass(cls, host.size(), **layout, dtype=host.dtype, device=CUDA)
        made.host = host
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})

    def __repr__(self) -> str:
        return f"CudaTensor({self.host!r})"

    def __deepcopy__(self, memo: dict) -> torch.Tensor:
        if id(self) not in memo:
            new = CudaTensor(self.host.detach().clone())
            parameter = isinstance(self, torch.nn.Parameter)
            memo[id(self)] = (
                torch.nn.Parameter(new, self.requires_grad) if parameter else new.requires_grad_(self.requires_grad)
            )
        return memo[id(self)]

    def __reduce_ex__(self, protocol: int) -> tuple:
        if type(self) is CudaTensor or isinstance(self, torch.nn.Parameter):
            note(TO_HOST, f"saved {tuple(self.shape)}")
        return self.host.detach().clone().__reduce_ex__(protocol)  # files hold CPU tensors


def on_cuda(x: object) -> bool:
    return isinstance(x, CudaTensor)


def bare(x: object) -> object:
    return x.host if isinstance(x, CudaTensor) else x


def dressed(x: object) -> object:
    return CudaTensor(x) if isinstance(x, torch.Tensor) and not isinstance(x, CudaTensor) else x


SCALARS = {aten._local_scalar_dense.default, aten.equal.default}  # answers are Python's
WAITS = SCALARS | {
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten.bincount.default,
    aten.allclose.default,
}
INDEXING = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
}
SAME_DTYPE = {  # places of the two tensors
    aten.index_copy_.default: (0, 3),
    aten.index_copy.default: (0, 3),
    aten.index_add_.default: (0, 3),
    aten.index_add.default: (0, 3),
    aten.scatter_.src: (0, 3),
    aten.scatter.src: (0, 3),
    aten.index_put_.default: (0, 2),
    aten.index_put.default: (0, 2),
}
TAKES_HOST_SCALAR = {  # besides pointwise ones
    aten.fill_.Tensor,
    aten.masked_fill.Tensor,
    aten.masked_fill_.Tensor,
    aten._foreach_mul_.Tensor,
    aten._foreach_mul.Tensor,
    aten._foreach_add_.Tensor,
}


def run(func, args: tuple, kwargs: dict):
    """One operation on the numbers behind; notes what a CUDA device would make of it."""
    if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
        with MODE:  # inference mode hands these over whole
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
    if func is aten._to_copy.default:
        return _converted(func, args[0], kwargs)
    if func is aten.copy_.default:
        return _copied(*args, **kwargs)
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    cuda = [x for x in tensors if on_cuda(x)]
    device = kwargs.get("device")
    result_on_cuda = bool(cuda) if device is None else torch.device(device).type == "cuda"
    pinned = kwargs.get("pin_memory") and not result_on_cuda
    kwargs = {name: value for name, value in kwargs.items() if name != "pin_memory"}
    if not func.is_view:
        read(*(x for x in tensors if not on_cuda(x)))
    if device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    elif not cuda:
        return _pinned(func(*args, **kwargs)) if pinned else func(*args, **kwargs)
    if cuda:
        _judge(func, args, kwargs, [x for x in tensors if not on_cuda(x)])
    result = func(*tree_map(bare, args), **tree_map(bare, kwargs))
    if func in SCALARS:
        return result
    if func._schema.is_mutable:  # give the same wrappers back
        known = {id(bare(t)): t for t in tensors}
        return tree_map(lambda x: known.get(id(x)) if id(x) in known else dressed(x) if result_on_cuda else x, result)
    return tree_map(dressed, result) if result_on_cuda else _pinned(result) if pinned else result


def waited() -> None:
    """The host has waited: copies on the way have arrived."""
    on_the_way.clear()


def read(*host: torch.Tensor) -> None:
    """Notes host tensors that are read before their copy has arrived."""
    if on_the_way:
        pointers = {storage.data_ptr() for storage in on_the_way}
        for x in host:
            if x.layout == torch.strided and x.numel() and storage_of(x).data_ptr() in pointers:
                note(EARLY, f"host tensor {tuple(x.shape)}")


storage_of = torch.Tensor.untyped_storage  # before anybody replaces it


def _pinned(x: torch.Tensor) -> torch.Tensor:
    x.pinned = True
    return x


def is_pinned(x: torch.Tensor) -> bool:
    base = x._base if x._base is not None else x
    return getattr(base, "pinned", False)


def _to_host(what: str, arrives_in: torch.Tensor, non_blocking: bool) -> None:
    if non_blocking:
        note(COPY, f"{what} to host")
        on_the_way.append(storage_of(arrives_in))
    else:
        note(TO_HOST, what)
        waited()


def _converted(func, source: torch.Tensor, kwargs: dict) -> torch.Tensor:
    device, non_blocking = kwargs.get("device"), bool(kwargs.get("non_blocking"))
    to_cuda = on_cuda(source) if device is None else torch.device(device).type == "cuda"
    if not on_cuda(source):
        read(source)
    kwargs = {name: value for name, value in kwargs.items() if name != "pin_memory"}
    result = func(bare(source), **{**kwargs, "device": torch.device("cpu")})
    if on_cuda(source) and not to_cuda:
        _to_host(f"to {tuple(source.shape)}", result, non_blocking)  # torch takes pinned memory for it
    if not on_cuda(source) and to_cuda:
        note(COPY if non_blocking else BLOCKING, f"to {tuple(source.shape)}")
    return CudaTensor(result) if to_cuda else result


def _copied(target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    if not on_cuda(source):
        read(source)
    if on_cuda(target) and not on_cuda(source):
        note(COPY if non_blocking else BLOCKING, f"copy_ {tuple(source.shape)}")
    if on_cuda(source) and not on_cuda(target):
        _to_host(f"copy_ {tuple(source.shape)}", target, non_blocking and is_pinned(target))
    bare(target).copy_(bare(source))
    return target


def _judge(func, args: tuple, kwargs: dict, host: list[torch.Tensor]) -> None:
    if func in INDEXING and on_cuda(args[0]):
        _judge_index(func, args[1], args[2] if len(args) > 2 else None)
    elif host and func is not aten.lift_fresh.default:
        large = [tuple(t.shape) for t in host if t.dim() > 0]
        if large or func in INDEXING:
            note(MIXED, f"{func} with host {large}")
        elif torch.Tag.pointwise not in func.tags and func not in TAKES_HOST_SCALAR:
            note(MIXED, f"{func} with a host scalar")
    if func in SAME_DTYPE:
        one, other = (args[place] for place in SAME_DTYPE[func])
        if one.dtype != other.dtype:
            note(DTYPES, f"{func} of {one.dtype} and {other.dtype}")
    if func in WAITS or (func is aten.repeat_interleave.Tensor and kwargs.get("output_size") is None):
        note(WAIT, func)
        waited()


def _judge_index(func, indices: list, value: torch.Tensor | None) -> None:
    indices = [i for i in indices if i is not None]
    for index in indices:
        if not on_cuda(index):
            note(BLOCKING, f"host index {tuple(index.shape)}")
    host_scalar = value is not None and not on_cuda(value) and value.dim() == 0
    if host_scalar and len(indices) == 1 and indices[0].dtype == torch.bool:
        return  # becomes masked_fill_
    if host_scalar:
        note(BLOCKING, "host scalar")
    elif value is not None and not on_cuda(value):
        note(MIXED, f"{func} with host {tuple(value.shape)}")
    if any(index.dtype == torch.bool for index in indices):
        note(WAIT, f"{func} by a mask")
        waited()


class Mode(TorchDispatchMode):
    """Catches what makes tensors from nothing."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


MODE = Mode()


@contextmanager
def entered() -> Iterator[None]:
    """The device, switched on for this thread."""
    torch._C._set_only_lift_cpu_tensors(True)
    with MODE:
        try:
            yield
        finally:
            waited()
            torch._C._set_only_lift_cpu_tensors(False)
