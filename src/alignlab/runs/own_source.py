"""A run that began from a released net keeps what of it isn't weights (`<run directory>/source`), so that it needs the
net's folder no more.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

FOLDER = "source"
_FROM_ELSEWHERE = {"pretrained": False, "text_weights": None}  # of parts of a net: weights that it begins with


def without_weights(node: Any) -> Any:
    """A net's config, or a part of it, that reads no weights."""
    if not isinstance(node, dict):
        return node
    changed = {name: _FROM_ELSEWHERE.get(name, without_weights(value)) for name, value in node.items()}
    if str(node.get("_target_")).endswith("released.net.pretrained_clip"):
        changed["weights"] = False
    return changed


def from_own_source(cfg: DictConfig, run_dir: Path) -> DictConfig:
    """The config of a run whose weights come from its checkpoint: those that its towers began with aren't wanted;
    sizes, tokenizer and recipes come from its own folder.
    """
    cfg, folder = cfg.copy(), run_dir / FOLDER
    parts = OmegaConf.to_container(cfg.model.get("net") or DictConfig({}))
    if (changed := without_weights(parts)) != parts:
        with open_dict(cfg):
            cfg.model.net = changed
    if not folder.is_dir() or cfg.data.get("like") is None:
        return cfg
    net = cfg.model.get("net")
    if net is not None and net.get("path") == cfg.data.like:
        with open_dict(cfg):
            cfg.model.net.path, cfg.model.net.weights = str(folder), False
    cfg.data.like = str(folder)
    return cfg


def is_gone(cfg: DictConfig) -> bool:
    """Whether a folder or file that a run began from isn't there any more; of a hub id nobody knows."""
    like, net = cfg.data.get("like"), cfg.model.get("net")
    files = [] if net is None else list(_files(OmegaConf.to_container(net)))
    return any(Path(file).is_absolute() and not Path(file).exists() for file in (like, *files) if file is not None)


def _files(node: Any) -> Iterator[str]:
    """Whatever parts of a net begin with."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name in _FROM_ELSEWHERE and isinstance(value, str):
                yield value
            yield from _files(value)
