"""What a config that came out of a run directory may name: such a config is data, whoever wrote it.

A part is what conf/ names, or a class of this package that derives from a kind of part (a net, a callback, a reward).
That a name lies in this package or in torch doesn't make it one: `torch.hub.load` runs what it fetches. What is no part
has to be named by the user of this command, with `plugins=...` or by typing the key again.
"""

import re
import sys
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from alignlab.configs import folders
from alignlab.configs.plugins import listed
from alignlab.configs.roots import ALLOWED
from alignlab.configs.signatures import ancestors, part_of, signature
from alignlab.files.kinds import few

# Parameters of parts that take, as a text, the dotted name of what they call: data's by `**of_x`, see `part_of`.
CALLED = ("reward", "judge")
CHECKED = "alignlab.evaluation.verifying.reward.correct"  # the reward of data whose answers a rule can check
# Where a class lies, and what it derives from, if it is a part that conf/ needn't name.
_ROOMS, _KINDS = ("callbacks", "losses", "methods", "models"), {"nn.Module", "Callback", "Reward"}


def named(content: Any, trusted: Container[str] = (), key: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and name of all that a config's container has called: targets, and texts that stand for code."""
    if isinstance(content, Mapping):
        called = [*CALLED]
        if "_target_" in content:
            yield _below(key, "_target_"), str(content["_target_"])
            called += [_named_part(str(content["_target_"]), trusted)]
        for name, value in content.items():
            if name in called:
                yield from _called(name, value, _below(key, name))
            if name != "_target_":
                yield from named(value, trusted, _below(key, name))
    elif isinstance(content, list | tuple):
        for index, value in enumerate(content):
            yield from named(value, trusted, f"{key}[{index}]")


def _called(parameter: str, value: Any, key: str) -> Iterator[tuple[str, str]]:
    """A text that stands for code, or several by names, however deep."""
    if isinstance(value, str):
        if not _is_path(parameter, value):
            yield key, value
    elif isinstance(value, Mapping) and "_target_" not in value and parameter in CALLED:
        for name, one in value.items():
            yield from _called(parameter, one, _below(key, name))


def refused(saved: Mapping[str, Any], trusted: Container[str] = ()) -> str | None:
    """Why a config out of a run directory can't be used, in one line; None if all that it names is a part.

    Args:
        saved: a plain container.
        trusted: names that the user of this command has given.
    """
    problems = [*_open_values(saved), *_unlisted_settings(saved, trusted)]
    names = [*named(saved, trusted)]
    for key, word in _words(saved):
        try:
            names += [(f"{key} ({word})", name) for _, name in named_by(word, trusted)]
        except ValueError as error:
            problems.append(f"{key}: {error}")
    if strange := _strange(names, trusted, listed(saved.get("plugins"))):
        problems.append(strange)
    return "; ".join(problems[:2]) or None


def strangers(content: Any, trusted: Container[str] = ()) -> str | None:
    """What a config names that is no part, in one line; None if there is nothing."""
    return _strange(list(named(content, trusted)), trusted, listed(content.get("plugins")))


def is_part(name: str) -> bool:
    """Whether a dotted name is that of a part."""
    if name in folders.targets(folders.main()) or name == CHECKED:
        return True
    return name.startswith(tuple(f"alignlab.{room}." for room in _ROOMS)) and not _KINDS.isdisjoint(ancestors(name))


def named_by(word: str, trusted: Container[str] = ()) -> list[tuple[str, str]]:
    """What one word of a command line, out of a run directory, has called.

    Raises:
        ValueError: it is no plain `key=value`, or one for Hydra itself.
    """
    try:
        (override,) = OverridesParser.create().parse_overrides([word])
        value = override.value()
    except (HydraException, ValueError) as error:
        raise ValueError(f"{word!r} is no key=value") from error
    key = override.key_or_group
    if override.is_delete():
        return []
    if key.startswith(("hydra", "-")) or override.is_sweep_override() or "${" in word:
        raise ValueError(f"{word!r} is no plain key=value, which alone may stand in a run directory")
    names = re.split(r"[./]", key)
    for name in reversed(names[2:] if names[0] == "stages" else names):  # a stage may be called as a reward is
        value = {name: value}
    return list(named(value, trusted))


def _strange(names: Sequence[tuple[str, str]], trusted: Container[str], given: Sequence[str] = ()) -> str | None:
    strange = {name: key for key, name in reversed(names) if name not in trusted and not is_part(name)}
    if not strange:
        return None
    said = few([f"{key} names {name}" for name, key in reversed(strange.items())])
    return (
        f"{said}, which is not among the parts that a run directory may name, and nothing of it is run; if you trust "
        f"it, name it yourself: plugins=[{','.join(_asked(reversed(strange), given))}]"
    )


def _asked(names: Iterable[str], given: Sequence[str]) -> list[str]:
    """What to name for names that are no parts: the plugins that the run had, where they look like that, else each."""
    plain = [each for each in given if re.fullmatch(r"[\w./-]+", each)]
    of = {Path(each).stem.partition(".")[0]: each for each in reversed(plain)}
    firsts = {name: name.partition(".")[0] for name in names}
    taken = (*ALLOWED, *sys.stdlib_module_names)
    return list(dict.fromkeys(name if first in taken else of.get(first, name) for name, first in firsts.items()))


def _words(saved: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Dotted key and word of the command lines in a config."""
    if not isinstance(saved.get("data"), Mapping):  # of a chain
        for key in ("stages", "overrides"):
            lists = saved.get(key) or {}
            for name, words in lists.items() if isinstance(lists, Mapping) else [("", lists)]:
                yield from ((_below(key, name) if name else key, str(word)) for word in words or ())
    task = saved.get("task")
    for entry in (task.get("backends") or ()) if isinstance(task, Mapping) else ():
        yield from (("task.backends", word) for word in str(entry).split()[1:])


def _open_values(content: Any, key: str = "") -> Iterator[str]:
    """Values that would be made when they are read: of the environment's variables, say."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            yield from _open_values(value, _below(key, name))
    elif isinstance(content, list | tuple):
        for index, value in enumerate(content):
            yield from _open_values(value, f"{key}[{index}]")
    elif isinstance(content, str) and "${" in content:
        yield f"{key} is {content[:60]}: a run writes values, no interpolations"


def _unlisted_settings(saved: Any, trusted: Container[str], key: str = "") -> Iterator[str]:
    """Keys that somebody else's class passes on to it doesn't say whom, unless conf/ has them too."""
    if isinstance(saved, Mapping):
        target = str(saved.get("_target_", "alignlab."))
        if not target.startswith("alignlab.") and target not in trusted and is_part(target):
            ours = folders.targets(folders.main())[target]
            known = {*signature(target).parameters, *ours, "_target_", "_partial_", "_convert_"}
            if unknown := [_below(key, name) for name in saved if name not in known]:
                yield f"{few(unknown)}: {target} doesn't name it, so a run directory can't set it"
        for name, value in saved.items():
            yield from _unlisted_settings(value, trusted, _below(key, name))
    elif isinstance(saved, list | tuple):
        for index, value in enumerate(saved):
            yield from _unlisted_settings(value, trusted, f"{key}[{index}]")


def _named_part(target: str, trusted: Container[str]) -> str | None:
    try:
        return part_of(target) if is_part(target) or target in trusted else None
    except Exception:  # not there, or not to be imported: the target itself is refused
        return None


def _is_path(parameter: str, value: str) -> bool:
    """Whether a reward is a run directory, as `as_reward` tells."""
    return parameter in CALLED and ("/" in value or Path(value).is_dir())


def _below(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)
