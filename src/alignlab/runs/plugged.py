"""plugins.json of a run directory: which plugins it was made with, their versions and hashes.

It says what was there. Whether any of it may be run, who opens the directory says (`configs/plugins.py`).
"""

import json
from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from alignlab.configs import parts, plugins
from alignlab.configs.plugins import Plugin
from alignlab.files.result import Result
from alignlab.files.writing import write_text

FILE = "plugins.json"


def used(cfg: DictConfig) -> list[Plugin]:
    """The plugins of a run: those that were named, and installed ones that its config names something of."""
    own = plugins.of(cfg)
    return own.used(name for _, name in parts.named(OmegaConf.to_container(cfg, resolve=True), own))


def note(result: Result, run_dir: Path, cfg: DictConfig) -> None:
    """Writes down what a run is made with, and notes what has changed since the run that it resumes began."""
    there = used(cfg)
    result.notes += changed(run_dir, there)
    result.plugins = {plugin.name: plugin.record() for plugin in there}
    if there:
        write_text(run_dir / FILE, json.dumps(result.plugins, indent=2) + "\n", durable=True)


def changed(run_dir: Path, there: Iterable[Plugin]) -> list[str]:
    """A line for each plugin whose files aren't those that a run was made with."""
    try:
        saved = json.loads((run_dir / FILE).read_text(encoding="utf-8"))
        hashes = {str(name): str(entry["sha256"]) for name, entry in saved.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []
    now = {plugin.name: plugin.record()["sha256"] for plugin in there if plugin.name in hashes}
    return [
        f"plugin {name}: its files have changed since this run began (SHA-256 {hashes[name][:8]} -> {str(new)[:8]})"
        for name, new in now.items()
        if str(new) != hashes[name]
    ]
