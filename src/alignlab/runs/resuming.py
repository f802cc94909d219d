"""Resumed runs: the saved config with this command line on top, and the list of what may differ from it.

A change either takes effect, and is noted in the log and in result.json, or is refused here.
"""

import fnmatch
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from alignlab.configs import parts, plugins
from alignlab.configs.check import ConfigError
from alignlab.configs.filling import filled
from alignlab.configs.roots import LAYOUT, InferenceRoot, Root
from alignlab.files.foreign_yaml import yaml_text
from alignlab.files.kinds import line_of
from alignlab.files.leaves import leaves
from alignlab.files.runs import newest_run
from alignlab.launch.environment import launch

SILENT = ("resume", "run_name", "layout", "plugins")
# Patterns of dotted keys, for fnmatch: the first that fits decides.
REFUSED: Mapping[type, Sequence[str]] = {
    Root: (
        "optim._target_ optim.decay optim.layer_decay optim.lr_multipliers* ckpt_path init_from model._target_ "
        "model.queue_size model.pool "
        "model.critic* model.loss._target_ data._target_"
    ).split(),
    InferenceRoot: "task._target_".split(),
}
TAKEN: Mapping[type, Sequence[str]] = {
    Root: (
        "trainer* callbacks* logger* seed objective optim.* model.gradient_checkpointing model.compile* "
        "model.micro_batch_size *.gradient_checkpointing "
        "*.dropout *.attention_dropout *.token_dropout model.loss.* data.batch_size data.num_workers "
        "data.prefetch_factor data.cache_gb data.on_error "
        "data.path data.val_path data.mix* data.annotations data.val_annotations data.image_dir"
    ).split(),
    # what stood on standard input may come from a file
    InferenceRoot: "backend* batch_size input output task.*".split(),
}


def resumed(cfg: DictConfig, overrides: Sequence[str], run_dir: Path | None = None, root: type = Root) -> DictConfig:
    """The config of the run that `resume` names, with this command line's overrides on top; `cfg` itself without
    `resume`.

    A run that torchrun or Slurm has started again resumes `run_dir` if there is a checkpoint.

    Raises:
        ConfigError: `resume` is no run directory, or something differs that a resumed run can't change.
    """
    if cfg.get("resume") is None and launch().restarts and run_dir and (run_dir / "checkpoints" / "last.ckpt").exists():
        cfg.resume = str(run_dir)
    if cfg.get("resume") is None:
        return cfg
    try:
        saved = filled(saved_config(cfg.resume, trusted_by(cfg)), root)
    except ValueError as error:
        raise ConfigError([f"resume: {error}"]) from error
    whole = _with_overrides(saved.copy(), filled(cfg, root), overrides)
    for key in ("resume", "plugins"):
        OmegaConf.update(whole, key, cfg.get(key), merge=False, force_add=True)
    if problems := list(_refused(saved, whole, root, str(cfg.resume))):
        raise ConfigError(problems)
    return whole


def saved_config(run_dir: str | Path, trusted: Container[str] = ()) -> DictConfig:
    """config.yaml of a run directory: data, which names parts only; the plugins that it says it had count for nothing.

    Args:
        run_dir: may be anybody's.
        trusted: names that the user of this command has given, which may stand in it besides.

    Raises:
        ValueError: there is none, it can't be read, it names what is no part, or an earlier alignlab has written it.
    """
    file = Path(run_dir) / "config.yaml"
    if not file.exists():
        newest = newest_run(run_dir)
        hint = f", such as the newest in there: {newest}" if newest != Path(run_dir) else ""
        raise ValueError(f"{run_dir} holds no config.yaml; name a run directory{hint}")
    try:
        saved = OmegaConf.create(yaml_text(file))
        content = OmegaConf.to_container(saved, resolve=False)
    except Exception as error:  # of YAML's and OmegaConf's many
        raise ValueError(
            str(error) if type(error) is ValueError else f"{file} can't be read ({line_of(error)[:200]})"
        ) from error
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{file} is no config: {'it is empty' if not content else 'a list'}")
    if problem := earlier(content, run_dir):
        raise ValueError(problem)
    if problem := parts.refused(content, trusted):
        raise ValueError(f"{file}: {problem}")
    saved.pop("parts", None)  # what plugins were called before
    saved.plugins = None
    return saved


def trusted_by(cfg: DictConfig) -> plugins.Plugins:
    """What a command has named: by conf/, by its words, in `plugins`.

    Raises:
        ValueError: a plugin isn't there.
    """
    own = plugins.of(cfg)
    return plugins.Plugins(own.plugins, {name for _, name in parts.named(_plain(cfg), own)})


def earlier(saved: Mapping[str, Any], place: str | Path) -> str | None:
    """What to say of a config of another layout than this one's; None for one that can be used."""
    layout = saved.get("layout", 1)
    if layout == LAYOUT:
        return None
    if not isinstance(layout, int) or layout > LAYOUT:
        return f"{place} was written by a later alignlab; use that one"
    return (
        f"{place} was written by an earlier alignlab (its modules have moved since): go on with that version "
        "(git_revision in "
        "result.json), or take its weights alone: `alignlab convert safetensors RUN FILE`, then ckpt_path=FILE"
    )


def noted(saved: DictConfig, cfg: DictConfig) -> list[str]:
    """A line for every setting that a resumed run has changed: `optim.lr: 0.001 -> 0.25`."""
    return [
        f"{key}: {_shown(old)} -> {_shown(new)}" for key, (old, new) in changes(saved, cfg).items() if key not in SILENT
    ]


def changes(saved: DictConfig, cfg: DictConfig) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> old and new value; None stands for a key that isn't there."""
    old, new = ({key: value for key, value in leaves(_plain(c)) if value is not None} for c in (saved, cfg))
    return {
        key: (old.get(key), new.get(key))
        for key in (*old, *(key for key in new if key not in old))
        if old.get(key) != new.get(key)
    }


def _with_overrides(saved: DictConfig, cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.key_or_group
        if key in ("experiment", "debug"):  # the whole command line was repeated
            return cfg.copy()
        key = key.split("/")[0] if "/" in key else key
        if key.startswith("hydra"):
            continue
        if override.is_delete():
            parent, _, name = key.rpartition(".")
            node = OmegaConf.select(saved, parent) if parent else saved
            if isinstance(node, DictConfig):
                node.pop(name, None)
        else:
            OmegaConf.update(saved, key, OmegaConf.select(cfg, key), merge=False, force_add=True)
    return saved


def _refused(saved: DictConfig, cfg: DictConfig, root: type, run_dir: str) -> Iterator[str]:
    for key, (old, new) in changes(saved, cfg).items():
        if key in SILENT or (not _fits(key, REFUSED[root]) and _fits(key, TAKEN[root])):
            continue
        if root is Root and _is_setting_of_method(key, old, new) and not _fits(key, REFUSED[root]):
            continue
        instead = (
            f"for a new run from its weights leave resume out and set ckpt_path={run_dir}/checkpoints/last.ckpt"
            if root is Root
            else "start a new run"
        )
        yield f"{key}: a resumed run can't change it ({_shown(old)} -> {_shown(new)}); {instead}"


def _is_setting_of_method(key: str, old: Any, new: Any) -> bool:
    """A number, word or switch right below `model`: of the method, not of the net."""
    return key.count(".") == 1 and key.startswith("model.") and not isinstance(old, dict) and not isinstance(new, dict)


def _fits(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)


def _plain(cfg: DictConfig) -> dict[str, Any]:
    """Without interpolations where they can be resolved; check() says the rest."""
    try:
        return OmegaConf.to_container(cfg, resolve=True)
    except Exception:
        return OmegaConf.to_container(cfg, resolve=False)


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)[:80]
