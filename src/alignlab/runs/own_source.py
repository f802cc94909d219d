"""A run that began from a released net keeps what of it isn't weights (`<run directory>/source`), so that it needs the
net's folder no more.
"""

from pathlib import Path

from omegaconf import DictConfig, open_dict

FOLDER = "source"


def from_own_source(cfg: DictConfig, run_dir: Path) -> DictConfig:
    """The config of a run whose weights come from its checkpoint: sizes, tokenizer and recipes from its own folder."""
    folder = run_dir / FOLDER
    if not folder.is_dir() or cfg.data.get("like") is None:
        return cfg
    cfg, net = cfg.copy(), cfg.model.get("net")
    if net is not None and net.get("path") == cfg.data.like:
        with open_dict(cfg):
            cfg.model.net.path, cfg.model.net.weights = str(folder), False
    cfg.data.like = str(folder)
    return cfg


def is_gone(cfg: DictConfig) -> bool:
    """Whether the folder or file that a run began from isn't there any more; of a hub id nobody knows."""
    like = cfg.data.get("like")
    return like is not None and Path(like).is_absolute() and not Path(like).exists()
