"""From a config to the objects of a run, and from a run directory back to a trained system."""

import logging
from collections.abc import Sequence
from pathlib import Path

import lightning
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from alignlab.callbacks.keeping.checkpoint import ConfigInCheckpoint
from alignlab.callbacks.keeping.checkpoint_folder import trained
from alignlab.callbacks.keeping.seeding import SeedPerRank
from alignlab.callbacks.keeping.spike_guard import SpikeGuard
from alignlab.configs.check import ConfigError, check
from alignlab.configs.filling import filled
from alignlab.configs.plugins import imported, listed, of
from alignlab.files.checksums import write_sums
from alignlab.files.kinds import few
from alignlab.files.runs import newest_run
from alignlab.files.weights import load_into, read_file, weights_of
from alignlab.files.writing import write_folder
from alignlab.launch.admission import refuse_ranks
from alignlab.launch.environment import launch
from alignlab.runs.fitting import check_kind, check_net
from alignlab.runs.own_source import FOLDER, from_own_source
from alignlab.runs.plugged import changed
from alignlab.runs.resuming import saved_config
from alignlab.strategies.srun import cluster_environment
from alignlab.systems.choosing import system_of

log = logging.getLogger(__name__)


def build(
    cfg: DictConfig, trained_in: Path | None = None
) -> tuple[lightning.LightningDataModule, lightning.LightningModule]:
    """The data module, set up, and the system that fits it; a run directory that weights come from gives the tokenizer
    that it trained.
    """
    check_net(cfg.model)
    datamodule = instantiate(cfg.data, _convert_="all")
    if trained_in is not None and hasattr(datamodule, "reuse_tokenizer"):
        datamodule.reuse_tokenizer(trained_in / "tokenizer")
    datamodule.prepare_data()
    datamodule.setup("fit")
    check_kind(cfg.model, datamodule)
    optim = instantiate(cfg.optim, _convert_="all")
    model = instantiate(cfg.model, _partial_=True, _convert_="all")
    return datamodule, system_of(model, vocabulary=datamodule.vocabulary, optim=optim, key="model")


def build_trainer(cfg: DictConfig, run_dir: Path, more: Sequence[lightning.pytorch.Callback] = ()) -> lightning.Trainer:
    """The trainer with its callbacks, `more` of them besides the config's, and loggers, writing to
    the run directory.
    """
    callbacks = [instantiate(entry, _convert_="all") for entry in (cfg.callbacks or {}).values() if entry is not None]
    callbacks.sort(
        key=lambda callback: not isinstance(callback, SpikeGuard)
    )  # takes steps back before others count them
    callbacks += [SeedPerRank(cfg.seed), ConfigInCheckpoint(OmegaConf.to_container(cfg, resolve=True)), *more]
    loggers = [
        instantiate(entry, save_dir=str(run_dir), _convert_="all")
        for entry in (cfg.logger or {}).values()
        if entry is not None
    ]
    if str(cfg.trainer.get("precision")) in ("16-true", "transformer-engine-float16"):
        raise ValueError(
            f"trainer.precision={cfg.trainer.precision} can't train: in float16 Adam's eps and the squares of small "
            "gradients are 0;"
            " take bf16-true, bf16-mixed or 16-mixed"
        )
    trainer = instantiate(cfg.trainer, _partial_=True, _convert_="all")
    if trainer.keywords.get("enable_progress_bar") is None:  # without ours there shall be none
        trainer.keywords["enable_progress_bar"] = any(isinstance(c, ProgressBar) for c in callbacks)
    plugins = trainer.keywords.get("plugins") or []
    plugins = [*plugins] if isinstance(plugins, list) else [plugins]
    if (environment := cluster_environment()) is not None:
        plugins.append(environment)
    built = trainer(callbacks=callbacks, logger=loggers, default_root_dir=str(run_dir), plugins=plugins or None)
    if launch().external:
        refuse_ranks({"devices": built.num_devices, "num_nodes": built.num_nodes})
    return built


def load_system(
    run_dir: str | Path, plugins: str | Sequence[str] = ()
) -> tuple[lightning.LightningModule, lightning.LightningDataModule]:
    """The trained system of a run directory (of a folder of runs: the newest), in eval mode on the CPU, and its data
    module, set up.

    The weights are those of checkpoints/best.ckpt, or of last.ckpt where there is no best one.

    Args:
        run_dir: may be anybody's: its config is data.
        plugins: code beside this package that it may name: `"./my_loss.py"`, `["my_package", "package.module.Name"]`.

    Raises:
        ValueError: no run directory, one without a checkpoint, one that names what is no part, or one of an earlier
            alignlab.
    """
    run_dir = newest_run(run_dir, holding="checkpoints")
    file = trained(run_dir)
    if file is None or not (run_dir / "config.yaml").exists():
        raise ValueError(f"{run_dir} is no run directory with a checkpoint (config.yaml, checkpoints/last.ckpt)")
    datamodule, system = build(from_own_source(_checked(run_dir, listed(plugins)), run_dir), run_dir)
    system.configure_model()
    weights = weights_of(read_file(file, "run directory"), file, "run directory")
    load_into(system, weights, file, "run directory")
    return system.eval(), datamodule


def _checked(run_dir: Path, named: list[str]) -> DictConfig:
    """A run directory's config, with nothing wrong with it, and the plugins that it needs."""
    own = of({"plugins": named})
    imported(own.plugins)
    for note in changed(run_dir, own.plugins):
        log.warning(note)
    cfg = filled(saved_config(run_dir, own))
    cfg.plugins = named
    try:
        check(cfg)
    except ConfigError as error:
        raise ValueError(f"{run_dir / 'config.yaml'}: {few(error.problems)}") from error
    return cfg


def save_tokenizer(datamodule: lightning.LightningDataModule, folder: Path) -> None:
    """Writes the tokenizer to the run directory, unless it comes from there: another rank may be reading it."""
    tokenizer = getattr(datamodule, "tokenizer", None)
    if rank_zero_only.rank == 0 and tokenizer is not None:
        if Path(getattr(tokenizer, "name_or_path", "")).resolve() != folder.resolve():

            def write(place: Path) -> None:
                tokenizer.save_pretrained(place)
                write_sums(place)

            write_folder(folder, write)
    if rank_zero_only.rank == 0 and hasattr(datamodule, "save_source"):
        datamodule.save_source(folder.with_name(FOLDER))
