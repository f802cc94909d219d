"""Lets a CUDA build of torchvision be imported beside a CPU build of torch; import it before torchvision, timm or lightning.

Package registries serve torchvision compiled for CUDA. Its extension doesn't load with a CPU torch, and importing the package
then fails while it registers shape functions for operators that nobody declared. Declaring them is enough: transforms, timm
models and `roi_align` don't call them. Where an extension loads, nothing happens here: it declares them itself, and ends the
process if somebody was faster. Its file is `_C.so` up to torchvision 0.28, `_C_stable.so` from 0.29 on.
`torchvision.ops.nms` and `torchvision.io.decode_image` stay unavailable.
"""

import importlib.util
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from pathlib import Path

import torch

_library = None  # the declarations live as long as this object


def declare_missing_ops() -> bool:
    """Declares the operators that torchvision's Python half expects; returns whether any were missing."""
    global _library
    if _library is not None:
        return True
    spec = importlib.util.find_spec("torchvision")
    if spec is None or _extension_loads(spec):
        return False
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return True


def _extension_loads(spec: ModuleSpec) -> bool:
    if hasattr(torch.ops.torchvision, "nms"):
        return True
    for extension in _extensions(spec):
        try:
            torch.ops.load_library(str(extension))
        except OSError:  # its CUDA libraries are not here
            continue
        if hasattr(torch.ops.torchvision, "nms"):
            return True
    return False


def _extensions(spec: ModuleSpec) -> list[Path]:
    """Files of torchvision's operators, whatever a release calls them: `_C` and a suffix."""
    found = [file for folder in spec.submodule_search_locations or () for file in Path(folder).glob("_C*")]
    return sorted(file for file in found if file.name.endswith(tuple(EXTENSION_SUFFIXES)))


declare_missing_ops()
