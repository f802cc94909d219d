"""Lets a CUDA build of torchvision be imported beside a CPU build of torch; import it before torchvision, timm or lightning.

Package registries serve torchvision compiled for CUDA. Its extension doesn't load with a CPU torch, and importing the package
then fails while it registers shape functions for operators that nobody declared. Declaring them is enough: transforms, timm
models and `roi_align` don't call them. Where the extension loads, nothing happens here. `torchvision.ops.nms` and
`torchvision.io.decode_image` stay unavailable.
"""

import importlib.util

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


def _extension_loads(spec: importlib.machinery.ModuleSpec) -> bool:
    if hasattr(torch.ops.torchvision, "nms"):
        return True
    extension = importlib.machinery.PathFinder.find_spec("_C", spec.submodule_search_locations)
    if extension is None or extension.origin is None:
        return False
    try:
        torch.ops.load_library(extension.origin)
    except OSError:  # its CUDA libraries are not here
        return False
    return hasattr(torch.ops.torchvision, "nms")


declare_missing_ops()
