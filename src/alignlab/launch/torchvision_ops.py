"""Lets a CUDA build of torchvision be imported beside a CPU build of torch; the package installs it for whoever
imports torchvision next.

Package registries serve torchvision compiled for CUDA. Its extension doesn't load with a CPU torch, and importing the
package then fails while it registers shape functions for operators that nobody declared. Declaring them is enough:
transforms, timm models and `roi_align` don't call them. Where an extension loads, nothing happens here: it declares
them itself, and ends the process if somebody was faster. Its file is `_C.so` up to torchvision 0.28, `_C_stable.so`
from 0.29 on. `torchvision.ops.nms` and `torchvision.io.decode_image` stay unavailable.
"""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from pathlib import Path
from types import ModuleType

_library = None  # the declarations live as long as this object


class BeforeTorchvision(MetaPathFinder):
    """Finds nothing itself: declares what is missing when torchvision is first looked for, and leaves."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "torchvision" and self in sys.meta_path:
            sys.meta_path.remove(self)
            declare_missing_ops()
        return None


def declare_missing_ops() -> bool:
    """Declares the operators that torchvision's Python half expects; returns whether any were missing."""
    import torch  # here, so that `--help` doesn't

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
    import torch

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
    extensions = [file for folder in spec.submodule_search_locations or () for file in Path(folder).glob("_C*")]
    return sorted(file for file in extensions if file.name.endswith(tuple(EXTENSION_SUFFIXES)))
