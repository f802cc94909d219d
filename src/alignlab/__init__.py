"""Alignment of vision with language and of language models with people; `train.py` and `infer.py` are the programs."""

import sys
from typing import TYPE_CHECKING, Any

from alignlab.launch.torchvision_ops import BeforeTorchvision

sys.meta_path.insert(0, BeforeTorchvision())

if TYPE_CHECKING:
    from alignlab.runs.loading import load as load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """`alignlab.load`, imported when it is asked for: it needs torch."""
    if name == "load":
        from alignlab.runs.loading import load

        return load
    raise AttributeError(f"module 'alignlab' has no attribute {name!r}")
