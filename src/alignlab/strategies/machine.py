"""What `trainer=` needs to know about the machine."""

import torch

from alignlab.launch.environment import launch


def accelerator() -> str:
    """`cuda` where there is a GPU, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def num_processes(on_cpu: int = 2) -> int:
    """One process per GPU, or `on_cpu` processes where there is none; as many as torchrun or srun have started on this
    node.
    """
    ranks = launch()
    return ranks.local_world_size if ranks.external else torch.cuda.device_count() or on_cpu


def num_nodes() -> int:
    """As many as torchrun or srun have started processes on; 1 else."""
    return launch().num_nodes
