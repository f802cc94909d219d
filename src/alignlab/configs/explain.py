"""Says what is wrong with a command line that Hydra refuses: all of it, in the words of this project."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from alignlab.configs import folders
from alignlab.configs.check import ConfigError, check, nearest
from alignlab.configs.roots import Root


def composed(words: Sequence[str], program: str = "train") -> DictConfig:
    """The config that a command line of another program than the running one would get.

    Raises:
        ConfigError: all that Hydra or the check would refuse.
    """
    try:
        with _hydra():
            return compose(program, overrides=list(words))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(explain(error, words, program)) from error


@contextmanager
def _hydra() -> Iterator[None]:
    """Hydra's state, the running program's where there is one."""
    if GlobalHydra.instance().is_initialized():
        yield
    else:
        with initialize_config_dir(str(folders.main()), version_base="1.3"):
            yield


def explain(error: Exception, overrides: Sequence[str], program: str = "train", root: type = Root) -> list[str]:
    """What is wrong with a command line that Hydra refused to compose: all of it, not just the first thing."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as unreadable:
        where = getattr(unreadable, "override", None)
        return [f"{where}: {line}" if where else line for line in str(unreadable).splitlines()[:1]]
    problems, kept, groups = [], [], folders.groups()
    for override in parsed:
        if override.key_or_group in groups:
            wrong = list(_wrong_choices(override))
            problems += wrong
            kept += [] if wrong or override.is_sweep_override() else [override.input_line]
        elif "/" in override.key_or_group:
            problems.append(f"{override.key_or_group}: unknown group{nearest(override.key_or_group, groups)}")
        elif not (override.is_delete() or override.key_or_group.startswith("hydra")):
            kept += [f"++{line.lstrip('+')}" for line in _first_of(override)]
    try:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(folders.main()), version_base="1.3"):
            check(compose(program, overrides=kept, return_hydra_config=False), root=root)
    except ConfigError as said:
        problems += [
            p
            + (
                nearest(p.split(":")[0], [group for group in groups if "/" not in group])
                if "unknown key" in p and "mean" not in p
                else ""
            )
            for p in said.problems
        ]
    except (HydraException, OmegaConfBaseException, ValueError, TypeError) as other:
        problems += [] if problems else str(other).splitlines()[:2]
    told = error.__cause__ if isinstance(error.__cause__, ValueError) else error  # of a launcher's constructor, say
    return problems or [line for line in str(told).splitlines() if line.strip()][:4]


def _first_of(override: Override) -> list[str]:
    """The override itself, or the first one of a sweep over a list; none of a sweep over an interval."""
    if not override.is_sweep_override():
        return [override.input_line or ""]
    if not override.is_discrete_sweep():
        return []
    return [f"{override.key_or_group}={next(iter(override.sweep_string_iterator()))}"]


def _wrong_choices(override: Override) -> Iterator[str]:
    group = override.key_or_group
    choices = folders.choices(group)
    value = list(override.sweep_string_iterator()) if override.is_sweep_override() else override.value()
    for choice in value if isinstance(value, list) else [value]:
        if choice is None and group in ("experiment", "debug", "study"):
            yield f"{group}=null: leave it out to have none"
        elif choice not in choices:
            shown = "null" if choice is None else choice
            yield f"{group}={shown}: no such choice{nearest(str(shown), choices)} (choices: {', '.join(choices)})"
