"""What follows from a config's net where nobody has chosen: the rate, by what the net starts from, and the size of
pictures.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from alignlab.optim.rates import RATES, Start

SMALL_PATCH, SMALL_SIZE = 8, 48  # pixels, of the nets that are trained from nothing on a CPU
# Parameters of parts of nets that name weights to begin with.
_WEIGHTS = ("pretrained", "text_weights")
_LOCKED = {"image": "vision", "text": "text"}  # `freeze` of a net of two towers


def started_from(cfg: DictConfig) -> Start:
    """By the config's model: an adapter; a net whose builder is called `pretrained...`; parts of a net that load
    weights. A run's own start (`init_from`, `ckpt_path`) doesn't count: what fits is taken, the rest is new.
    """
    model = OmegaConf.select(cfg, "model")
    if not isinstance(model, DictConfig):
        return "nothing"
    if OmegaConf.select(model, "peft") is not None:
        return "adapter"
    net = OmegaConf.select(model, "net")
    if not isinstance(net, DictConfig):
        return "nothing"
    content = OmegaConf.to_container(net, resolve=False, throw_on_missing=False)
    if content.get("lora_rank") is not None:  # of towers for pictures and texts
        return "adapter"
    if str(content.get("_target_", "")).rpartition(".")[2].startswith("pretrained"):
        return "pretrained"
    locked = _LOCKED.get(content.get("freeze"))  # what doesn't learn has no rate
    learning = {name: part for name, part in content.items() if name != locked}
    return "towers" if any(node.get(name) for node in _nodes(learning) for name in _WEIGHTS) else "nothing"


def start_lr(from_nothing: float, adapter: float | None = None, *, _root_: DictConfig) -> float:
    """`${start_lr:1.0e-3}`: the rate given where the net starts from nothing, else the table's
    (`alignlab.optim.rates`); `${start_lr:3.0e-4,2.0e-4}`: for adapters that one.
    """
    start = started_from(_root_)
    if start == "nothing":
        return float(from_nothing)
    if start == "adapter" and adapter is not None:
        return float(adapter)
    return RATES[start]


def picture_size(size: int, *, _root_: DictConfig) -> int:
    """`${picture_size:224}`: 48 px for nets whose patches have 8 px (784 patches at 224 px), else the size given."""
    net = OmegaConf.select(_root_, "model.net")
    content = OmegaConf.to_container(net, resolve=False, throw_on_missing=False) if isinstance(net, DictConfig) else {}
    sizes = (node.get("patch_size") for node in _nodes(content))
    patches = [size for size in sizes if isinstance(size, int)]
    return SMALL_SIZE if patches and min(patches) <= SMALL_PATCH else int(size)


def _nodes(content: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(content, Mapping):
        yield content
        for value in content.values():
            yield from _nodes(value)
