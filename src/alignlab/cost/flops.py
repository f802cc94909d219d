"""FLOPs of a model as torch counts them, without those of activations that are computed twice; peaks of devices.

Two FLOPs a multiplication with addition; matrix products, convolutions and fused attention count, the rest is left
out.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

_REPEATED: ContextVar[bool] = ContextVar("repeated", default=False)

# Dense peaks of the makers' data sheets, bfloat16 with float32 sums. Lightning's `get_available_flops` takes an L40S
# for an L4 and doesn't know an H200.
PEAKS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
}


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(
    gradient: torch.Size, query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any
) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


def _grouped(a: torch.Size, b: torch.Size, *_: Any, **__: Any) -> int:
    """Of products of stretches of rows (or columns) with a matrix each: every row has one."""
    return 2 * a[-2] * a[-1] * b[-1]


_LACKING = {  # in torch's own table
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    torch.ops.aten._grouped_mm: _grouped,
}


class ModelFlops(FlopCounterMode):
    """Counts what runs inside its context, but for forward passes that gradient checkpointing or `repeated` does once
    more.
    """

    def __init__(self) -> None:
        super().__init__(display=False, custom_mapping=_LACKING)

    def _count_flops(self, func_packet: Any, out: Any, args: tuple, kwargs: dict) -> Any:
        # inside a backward pass only activations that are computed again ask for gradients
        again = torch.is_grad_enabled() and torch._C._current_graph_task_id() != -1
        return out if again or _REPEATED.get() else super()._count_flops(func_packet, out, args, kwargs)


@contextmanager
def repeated() -> Iterator[None]:
    """Marks a forward pass that is done a second time elsewhere in the same step: the model's FLOPs contain it once."""
    token = _REPEATED.set(True)
    try:
        yield
    finally:
        _REPEATED.reset(token)


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s that a device can reach: a known GPU's in bfloat16 by data sheet, otherwise those of a large matrix
    product, measured now.
    """
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        for known, peak in PEAKS.items():
            if all(word in name for word in known.split()):
                return peak
    return measured_flops(device, dtype)


def measured_flops(device: torch.device, dtype: torch.dtype, seconds: float = 0.3) -> float:
    """FLOP/s of the best of several matrix products of side 1024 (CPU) or 8192."""
    side = 1024 if device.type == "cpu" else 8192
    a = torch.randn(side, side, device=device, dtype=dtype)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        _wait(device)
        start = time.perf_counter()
        a @ a
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
