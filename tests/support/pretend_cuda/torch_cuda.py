"""What Python asks of `torch.cuda`, and what of tensors, attention and modules doesn't pass through the dispatcher."""

import os
import types

os.environ.setdefault("HF_DEACTIVATE_ASYNC_LOAD", "1")  # transformers loads in threads, where the device is off

from pretend_cuda.device import CUDA, aten, bare, is_pinned, on_cuda, read, waited
from pretend_cuda.log import ADDRESS, DTYPES, WAIT, note

import torch
import torch.cuda.amp.common
import torch.cuda.graphs
import torch.nn.functional as F

torch.set_num_threads(1)
_random_state = torch.zeros(16, dtype=torch.uint8)


def _set_random_state(state: torch.Tensor, device: object = None) -> None:
    global _random_state
    if on_cuda(state) or state.dtype != torch.uint8:
        raise TypeError("RNG state must be a torch.ByteTensor on the CPU")
    _random_state = state.clone()


def _wait(what: str) -> None:
    note(WAIT, what)
    waited()


class _Device:
    def __init__(self, *_: object) -> None: ...
    def __enter__(self) -> "_Device":
        return self

    def __exit__(self, *_: object) -> None: ...


class _Event:
    """Of a stream on which everything is done at once."""

    def __init__(self, *_: object, **__: object) -> None: ...
    def record(self, stream: object = None) -> None: ...
    def wait(self, stream: object = None) -> None: ...

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        _wait("event.synchronize")


class _Stream(_Device):
    device = CUDA

    def wait_stream(self, stream: object) -> None: ...
    def wait_event(self, event: object) -> None: ...

    def record_event(self, event: object = None) -> object:
        return event or _Event()

    def synchronize(self) -> None:
        _wait("stream.synchronize")


def _nothing() -> object:
    return lambda *_, **__: None  # one function a name: dynamo keeps a table of them


_properties = types.SimpleNamespace(
    name="NVIDIA H100 80GB HBM3", total_memory=80 << 30, multi_processor_count=132, major=9, minor=0, warp_size=32
)
for _name, _value in {
    "is_available": lambda: True,
    "is_initialized": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "device": _Device,
    "Event": _Event,
    "Stream": _Stream,
    "stream": lambda stream: stream if stream is not None else _Device(),
    "current_stream": lambda device=None: _Stream(),
    "default_stream": lambda device=None: _Stream(),
    "is_bf16_supported": lambda *_, **__: True,
    "is_current_stream_capturing": lambda: False,
    "synchronize": lambda device=None: _wait("torch.cuda.synchronize"),
    "get_device_name": lambda device=None: _properties.name,
    "get_device_capability": lambda device=None: (9, 0),
    "get_device_properties": lambda device=None: _properties,
    "mem_get_info": lambda device=None: (70 << 30, 80 << 30),
    "max_memory_allocated": lambda device=None: 1 << 20,
    "memory_allocated": lambda device=None: 1 << 20,
    "memory_reserved": lambda device=None: 1 << 20,
    "memory_stats": lambda device=None: {},
    "get_rng_state": lambda device=None: _random_state.clone(),
    "get_rng_state_all": lambda: [_random_state.clone()],
    "set_rng_state": _set_random_state,
    "set_rng_state_all": lambda states: _set_random_state(states[0]),
    **{name: _nothing() for name in ("init", "_lazy_init", "set_device", "empty_cache", "reset_peak_memory_stats")},
    **{name: _nothing() for name in ("manual_seed", "manual_seed_all")},
}.items():
    setattr(torch.cuda, _name, _value)
torch.cuda.graphs.is_current_stream_capturing = lambda: False
if not hasattr(torch._C, "_cuda_getCurrentRawStream"):  # bitsandbytes looks for it as it is imported
    torch._C._cuda_getCurrentRawStream = lambda device: 0
torch.cuda.amp.common.amp_definitely_not_available = lambda: False


class _Generator(torch.Generator):
    def __new__(cls, device: object = "cpu") -> torch.Generator:
        return super().__new__(cls, device="cpu")


torch.Generator = _Generator


# Methods of tensors that don't pass through the dispatcher

_methods = {name: getattr(torch.Tensor, name) for name in ("tolist", "numpy", "data_ptr", "untyped_storage")}


def _tolist(self: torch.Tensor) -> list:
    if on_cuda(self):
        _wait(f"tolist {tuple(self.shape)}")
    read(bare(self))
    return _methods["tolist"](bare(self))


def _numpy(self: torch.Tensor, **options: object) -> object:
    if on_cuda(self):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")
    read(self)
    return _methods["numpy"](self, **options)


def _data_ptr(self: torch.Tensor) -> int:
    if on_cuda(self):
        note(ADDRESS, f"data_ptr of a cuda tensor {tuple(self.shape)}")
    return _methods["data_ptr"](bare(self))


def _untyped_storage(self: torch.Tensor) -> torch.UntypedStorage:
    read(bare(self))
    return _methods["untyped_storage"](bare(self))


def _pin_memory(self: torch.Tensor, device: object = None) -> torch.Tensor:
    self.pinned = True
    return self


torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.data_ptr = _tolist, _numpy, _data_ptr
torch.Tensor.untyped_storage = _untyped_storage
torch.Tensor.pin_memory = _pin_memory
torch.Tensor.is_pinned = lambda self, device=None: is_pinned(self)


# Attention: torch would choose among kernels that aren't here

_attention = F.scaled_dot_product_attention


def _math_attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
) -> torch.Tensor:
    if not on_cuda(query):
        return _attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    if torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        if attn_mask is not None and attn_mask.is_floating_point():
            attn_mask = attn_mask.to(dtype)
    if not query.dtype == key.dtype == value.dtype or (
        attn_mask is not None and attn_mask.dtype not in (torch.bool, query.dtype)
    ):
        mask = None if attn_mask is None else attn_mask.dtype
        note(DTYPES, f"attention of {query.dtype} {key.dtype} {value.dtype} under {mask}")
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        zeros = torch.zeros(attn_mask.shape, dtype=query.dtype, device=attn_mask.device)
        attn_mask = zeros.masked_fill(~attn_mask, float("-inf"))
    with torch.autocast("cuda", enabled=False):
        return aten._scaled_dot_product_attention_math(
            query, key, value, attn_mask, dropout_p, is_causal, None, scale=scale, enable_gqa=enable_gqa
        )[0]


F.scaled_dot_product_attention = _math_attention


# Modules: a parameter that moves becomes a new one, since a CPU tensor can't become a wrapper in place


def _apply(self: torch.nn.Module, fn, recurse: bool = True) -> torch.nn.Module:
    memo: dict[int, torch.Tensor] = {}
    for module in self.modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in memo:
                with torch.no_grad():
                    new = fn(parameter)
                if new is parameter:
                    memo[id(parameter)] = parameter
                elif on_cuda(new) or on_cuda(parameter):
                    memo[id(parameter)] = torch.nn.Parameter(new, parameter.requires_grad)
                else:
                    parameter.data = new
                    memo[id(parameter)] = parameter
            module._parameters[name] = memo[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                if id(buffer) not in memo:
                    memo[id(buffer)] = fn(buffer)
                module._buffers[name] = memo[id(buffer)]
    return self


torch.nn.Module._apply = _apply
