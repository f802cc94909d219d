"""The kinds of runs: what each composes from, what its config may hold, what does it."""

import pkgutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

import alignlab.configs.resolvers  # noqa: F401 - tells Hydra
from alignlab.configs.check import ConfigError, check
from alignlab.configs.command_line import (
    arguments,
    chain_arguments,
    chosen_chain,
    inference_arguments,
    training_arguments,
)
from alignlab.configs.filling import filled
from alignlab.configs.plugins import imported
from alignlab.configs.roots import ChainRoot, InferenceRoot, Root
from alignlab.files.result import Result
from alignlab.launch import collector
from alignlab.runs import chain, plugged
from alignlab.runs.earlier.needs import completed, needs_model, promised
from alignlab.runs.resuming import resumed


@dataclass(frozen=True)
class Kind:
    """One kind of run.

    Attributes:
        name: of its file in conf/.
        root: dataclass of its config's root keys.
        does: dotted name of what runs a checked config; imported when it is wanted, since it needs torch.
        log: the file in the run directory that a traceback goes to.
    """

    name: str
    root: type
    does: str
    log: str = "train.log"

    def arguments(self, words: Sequence[str]) -> list[str]:
        """A command line as typed, for Hydra."""
        if self.root is ChainRoot:
            return arguments(chain_arguments(words))
        return arguments(
            inference_arguments(words, terminal()) if self.root is InferenceRoot else training_arguments(words)
        )

    def checked(self, cfg: DictConfig, overrides: Sequence[str], run_dir: Path) -> DictConfig:
        """The composed config with the run that it resumes taken in, every default written out and nothing wrong with
        it.

        Raises:
            ConfigError: all that is wrong.
        """
        if self.root is ChainRoot:
            return chain.checked(cfg, run_dir)
        cfg = filled(resumed(cfg, overrides, run_dir, self.root), self.root)
        if not needs_model(cfg):
            cfg.model_path = None
        check(promised(cfg), root=self.root)
        cfg.plugins = [plugin.given for plugin in plugged.used(cfg)] or None
        return cfg

    def completed(self, cfg: DictConfig, run_dir: Path) -> DictConfig:
        """The checked config with what earlier runs give filled in (`runs.earlier.needs`)."""
        return cfg if self.root is ChainRoot else completed(cfg, run_dir)

    def imported(self, cfg: DictConfig) -> None:
        """Imports the plugins of a run, whose stages' processes do so themselves where it is a chain.

        Raises:
            ConfigError: one can't be imported.
        """
        try:
            with collector.resting():
                imported(() if self.root is ChainRoot else plugged.used(cfg))
        except ValueError as error:
            raise ConfigError([str(error)]) from error

    def shown(self, cfg: DictConfig) -> DictConfig:
        """The composed config for `--cfg job`: every default written out, the stages of a chain as their configs."""
        if self.root is ChainRoot:
            return chain.shown(cfg)
        return filled(cfg, self.root)

    def run(self, cfg: DictConfig) -> Result:
        with collector.resting():
            does = pkgutil.resolve_name(self.does)
        return does(cfg)


TRAIN = Kind("train", Root, "alignlab.runs.train:train")
INFER = Kind("infer", InferenceRoot, "alignlab.runs.infer:infer", log="infer.log")
CHAIN = Kind("chain", ChainRoot, "alignlab.runs.chain:chain")


def typed(program: str, words: Sequence[str]) -> tuple[Kind, list[str]]:
    """What kind of run a command line asks for, and the line for Hydra.

    Args:
        program: train or infer.
    """
    kind = {"train": TRAIN, "infer": INFER}[program]
    chains = chosen_chain(words) if kind is TRAIN else None
    return (kind, kind.arguments(words)) if chains is None else (CHAIN, CHAIN.arguments(chains))


def terminal() -> bool:
    """Whether somebody sits at the standard input."""
    return sys.stdin is not None and sys.stdin.isatty()


def of(cfg: DictConfig) -> Kind:
    """The kind of a composed config."""
    return CHAIN if "stages" in cfg else INFER if "task" in cfg else TRAIN
