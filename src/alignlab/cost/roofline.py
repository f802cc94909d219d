"""What the machine and the model allow: memory bandwidth, bytes of the cache.

Legend: B requests, T tokens.
"""

import time
from typing import Any

import torch

from alignlab.distributed.devices import default_device


def read_bandwidth(size: int = 2**29, repeats: int = 5, device: str | None = None) -> float:
    """Bytes per second that a device ("cuda", "cpu", None: the default) reads from its memory: the best of `repeats`
    sums over `size` bytes.

    On a CPU by all threads of torch, on a GPU twice the bytes of a copy, which reads and writes.
    """
    device = device or default_device()
    data = torch.ones(size // 4, dtype=torch.float32, device=device)
    best = float("inf")
    for _ in range(repeats + 1):  # the first one touches the pages
        if device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        if device == "cuda":
            data.clone()
            torch.cuda.synchronize()
        else:
            data.sum()
        best = min(best, time.perf_counter() - started)
    return size * (2 if device == "cuda" else 1) / best


def cache_bytes(config: Any, batch: int, tokens: int, element: int) -> int:
    """Bytes of keys and values: 2 * layers * key-value heads * head width * B * T * bytes of an element, from a
    model's config.
    """
    layers = _first(config, "num_hidden_layers", "n_layer")
    heads = _first(config, "num_attention_heads", "n_head")
    width = getattr(config, "head_dim", None) or _first(config, "hidden_size", "n_embd") // heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    return 2 * layers * kv_heads * width * batch * tokens * element


def _first(config: Any, *names: str) -> int:
    return next(int(value) for name in names if (value := getattr(config, name, None)) is not None)
