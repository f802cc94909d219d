"""Which steps a corpus goes through, and their limits: by the kind of data, a list in a YAML file, the command line."""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from alignlab.corpus.steps.clip_score import ClipScore
from alignlab.corpus.steps.decontam import Decontam
from alignlab.corpus.steps.exact_dup import ExactDup
from alignlab.corpus.steps.language import Language
from alignlab.corpus.steps.near_dup import NearDup
from alignlab.corpus.steps.pairs import Pairs
from alignlab.corpus.steps.pictures import Pictures
from alignlab.corpus.steps.pii import Pii
from alignlab.corpus.steps.quality import NAMES as LIMITS
from alignlab.corpus.steps.quality import Quality
from alignlab.corpus.steps.schema import Schema

STEPS: Mapping[str, Callable[..., Any]] = {
    one.name: one for one in (Schema, Language, Quality, ExactDup, NearDup, Decontam, Pairs, Pictures, ClipScore, Pii)
}
Chain = list[tuple[str, dict[str, Any]]]  # names of steps in order, with their settings

_AMID: Chain = [("exact_dup", {}), ("near_dup", {})]
_BEGIN: Chain = [("schema", {}), ("language", {})]
_DEFAULTS: Mapping[str, Chain] = {
    "text": [*_BEGIN, ("quality", {}), *_AMID, ("pii", {})],
    "captions": [*_BEGIN, ("quality", {"preset": "caption"}), *_AMID, ("pii", {})],
    "sft": [*_BEGIN, ("quality", {"preset": "chat"}), *_AMID, ("pii", {})],
    "pairs": [*_BEGIN, ("quality", {"preset": "chat"}), ("pairs", {}), ("exact_dup", {}), ("pii", {})],
}


def chain_of(
    kind: str,
    steps: Sequence[str] = (),
    file: Path | None = None,
    words: Sequence[str] = (),
    evaluation: Sequence[Path] = (),
    pictures: Path | None = None,
) -> Chain:
    """The steps and settings of a kind of data.

    Args:
        steps: names, in order; none: the kind's.
        file: YAML, a list of names or of `{name: {setting: value}}`; instead of `steps`.
        words: `step.setting=value`, values as in YAML.
        evaluation: files that the step `decontam` gets; it is put before `pii` where no list names it.
        pictures: the folder that the step `pictures` gets; likewise, before `exact_dup`.

    Raises:
        ValueError: an unknown step or setting (the nearest is named), a step twice, or a value that it doesn't take.
    """
    own = {name: dict(given) for name, given in _DEFAULTS[kind]}
    if steps and file is not None:
        raise ValueError("--steps and --chain both say which steps there are; give one")
    if file is not None:
        chain = _of_file(file, own)
    else:
        chain = [(name, dict(own.get(name, {}))) for name in steps or own]
    names = [name for name, _ in chain]
    for name in names:
        _known(name, STEPS, "step")
        if names.count(name) > 1:
            raise ValueError(f"the step {name} stands there twice")
    if "schema" not in names:
        chain.insert(0, ("schema", {}))
    if evaluation:
        _added(chain, "decontam", "pii")["files"] = [str(one) for one in evaluation]
    if pictures is not None:
        _added(chain, "pictures", "exact_dup")["folder"] = str(pictures)
    settings = dict(chain)
    for word in words:
        path, sign, value = word.partition("=")
        step, dot, setting = path.partition(".")
        if not sign or not dot:
            raise ValueError(f"--set {word}: it must be step.setting=value, as near_dup.threshold=0.8")
        _known(step, STEPS, "step")
        if step not in settings:
            raise ValueError(f"--set {word}: the chain has no step {step}, but {', '.join(settings)}")
        settings[step][setting] = yaml.safe_load(value)
    for name, given in chain:
        made(name, given)
    return chain


def _added(chain: Chain, name: str, before: str) -> dict[str, Any]:
    """Settings of a step of the chain, which is put before another if it isn't there."""
    if name not in dict(chain):
        at = next((place for place, (one, _) in enumerate(chain) if one == before), len(chain))
        chain.insert(at, (name, {}))
    return dict(chain)[name]


def made(name: str, settings: Mapping[str, Any]) -> Any:
    """A step with its settings. Raises ValueError, which begins with the step's name, for what it doesn't take."""
    known = [*inspect.signature(STEPS[name]).parameters]
    if "limits" in known:
        known = [*known[:-1], *LIMITS]
    for setting in settings:
        _known(setting, known, f"setting of {name}")
    try:
        return STEPS[name](**settings)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}.{error}") from error


def _of_file(file: Path, own: Mapping[str, dict[str, Any]]) -> Chain:
    try:
        listed = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{file} can't be read ({' '.join(str(error).split())})") from error
    if not isinstance(listed, list):
        raise ValueError(f"{file} must be a list of steps")
    chain: Chain = []
    for one in listed:
        named = {one: {}} if isinstance(one, str) else one
        if not (isinstance(named, dict) and len(named) == 1 and isinstance(next(iter(named.values())) or {}, dict)):
            raise ValueError(f"{file}: {one!r} is no step; it must be a name, or a name with its settings")
        ((name, settings),) = named.items()
        chain.append((str(name), {**own.get(name, {}), **(settings or {})}))
    return chain


def _known(name: str, known: Any, what: str) -> None:
    if name not in known:
        close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
        meant = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"there is no {what} {name}{meant} (there are {', '.join(known)})")
