"""The size of pictures where nobody has chosen one: that of the net."""

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

SMALL_PATCH, SMALL_SIZE = 8, 48  # of the nets that are trained from nothing on a CPU


def picture_size(size: int, *, _root_: DictConfig) -> int:
    """`${picture_size:224}`: 48 px for nets whose patches have 8 px (784 patches at 224 px), else the size given."""
    net = OmegaConf.select(_root_, "model.net")
    content = OmegaConf.to_container(net, resolve=False, throw_on_missing=False) if isinstance(net, DictConfig) else {}
    patches = [patch for patch in _patch_sizes(content) if isinstance(patch, int)]
    return SMALL_SIZE if patches and min(patches) <= SMALL_PATCH else int(size)


def _patch_sizes(content: Any) -> Iterator[Any]:
    if isinstance(content, Mapping):
        for name, value in content.items():
            if name == "patch_size":
                yield value
            else:
                yield from _patch_sizes(value)
