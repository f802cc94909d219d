"""What `trainer=` needs to know about the machine."""

import torch


def accelerator() -> str:
    """`cuda` where there is a GPU, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def num_processes(on_cpu: int = 2) -> int:
    """One process per GPU, or `on_cpu` processes where there is none."""
    return torch.cuda.device_count() or on_cpu
