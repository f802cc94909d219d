"""Command lines as users type them, and as Hydra takes them."""

import itertools
import re
import zipfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser

from alignlab.configs.folders import choices
from alignlab.launch.sweep import quoted

# Hydra takes `model` for a group in this folder of configs, so infer.py's key has another name there.
_TYPED, _KEY = "model", "model_path"
# Words of infer.py that say what is to be done.
_ASKING = ("task", "prompt_text", "input", "resume", "-m", "--multirun")
# Models whose net may be a released one, and the choice of a net that reads these.
_FOR_PAIRS, _RELEASED = ("model=clip", "model=siglip", "experiment=own_pictures"), "model/net=clip_pretrained"
# Root keys of a chain; all others are the stages'.
_OF_CHAINS = ("hydra", "chain", "overrides", "run_name", "resume", "objective", "plugins")


def arguments(words: Sequence[str]) -> list[str]:
    """A command line for Hydra that may set values which no file lists: the check knows what each part takes, and
    refuses the rest.
    """
    return [f"++{word.lstrip('+')}" if _is_value(word) else word for word in words]


def without_force(words: Iterable[str]) -> list[str]:
    """The same back, for people to read and for a program that does it again."""
    return [word.lstrip("+") if _is_value(word) else word for word in words]


def _is_value(word: str) -> bool:
    key, equals, _ = word.partition("=")
    key = key.lstrip("+")
    return bool(equals) and "." in key and not {"/", "@"} & set(key) and not key.startswith(("~", "-", "hydra."))


def inference_arguments(words: Sequence[str], terminal: bool = False) -> list[str]:
    """A command line of infer.py with its `model=x` under the name that its config has for it.

    Args:
        terminal: whether somebody sits at it: where nothing is asked then, a chat begins.
    """
    named = [f"{_KEY}={word[len(_TYPED) + 1 :]}" if word.startswith(f"{_TYPED}=") else word for word in words]
    asks = any(word.lstrip("+").partition("=")[0] in _ASKING for word in named)
    return named if asks or not terminal else [*named, "task=chat"]


def demo_arguments(words: Sequence[str]) -> list[str]:
    """What `alignlab demo RUN` stands for: a word that is no `key=value` and no option is the model."""
    is_place = [not word.startswith("-") and not re.match(r"[\w.+~]+=", word) for word in words]
    return ["task=demo", *(f"model={quoted(w)}" if place else w for w, place in zip(words, is_place, strict=True))]


def training_arguments(words: Sequence[str]) -> list[str]:
    """A command line of train.py whose `init_from=` names a released CLIP or SigLIP, with that as the net."""
    places = [word[len("init_from=") :].strip("'\"") for word in words if word.startswith("init_from=")]
    named = any(re.match(r"model/net=|\+*model\.net\.path=", word) for word in words)
    if len(places) != 1 or named or not set(_FOR_PAIRS) & set(words) or not _is_released(places[0]):
        return list(words)
    others = [word for word in words if not word.startswith("init_from=")]
    return [*others, _RELEASED, f"model.net.path={quoted(places[0])}"]


def _is_released(place: str) -> bool:
    """Whether a place is a folder in transformers' or open_clip's format, a TorchScript archive, or looks like an id of
    the hub, and no run's.
    """
    path = Path(place).expanduser()
    if path.is_dir():
        return (path / "open_clip_config.json").is_file() or '"model_type"' in _lossy(path / "config.json")
    if path.is_file():
        with suppress(zipfile.BadZipFile, OSError), zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
        return False
    return re.fullmatch(r"(?!outputs/)[\w.-]+/[\w.-]+", place) is not None and not path.suffix


def as_typed(text: str) -> str:
    """A message of infer.py in the words of its users."""
    return text.replace(_KEY, _TYPED)


def chosen_chain(words: Sequence[str]) -> list[str] | None:
    """The words of a command line of train.py that is about a chain; None for one that trains a single run.

    It is if it names a chain, be it as `experiment=`, or resumes a chain's directory.
    """
    chains = choices("chain")
    named = [f"chain={word[11:]}" if word[:11] == "experiment=" and word[11:] in chains else word for word in words]
    if any(word.startswith("chain=") for word in named):
        return named
    resumed = next((Path(word[7:].strip("'\"")) / "config.yaml" for word in words if word.startswith("resume=")), None)
    is_chain = resumed is not None and resumed.is_file() and "\nstages:" in "\n" + _lossy(resumed)
    return named if is_chain else None


def _lossy(file: Path) -> str:
    """A file's text, whatever it is: whoever reads it in earnest says what is wrong with it."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def chain_arguments(words: Sequence[str]) -> list[str]:
    """A command line for a chain's config, which takes what is meant for the stages as one list of words.

    A sweep over such words becomes one over lists: `seed=0,1` is `overrides=['seed=0'],['seed=1']`.
    """
    own = [word for word in words if _is_chains_own(word)]
    choices = [_swept(word) for word in words if not _is_chains_own(word)]
    if not choices:
        return own
    lists = (f"[{','.join(map(quoted, combination))}]" for combination in itertools.product(*choices))
    return [*own, f"overrides={','.join(lists)}"]


def _is_chains_own(word: str) -> bool:
    key = word.lstrip("+~").partition("=")[0]
    if "=" not in word and not word.startswith("~"):  # of Hydra's options
        return True
    first, *rest = re.split(r"[./]", key)
    return first in _OF_CHAINS or (first == "stages" and len(rest) < 2)


def _swept(word: str) -> list[str]:
    """The words that a sweep over discrete values stands for."""
    if "," not in word and "(" not in word:
        return [word]
    (override,) = OverridesParser.create().parse_overrides([word])
    if not override.is_discrete_sweep():
        return [word]
    key = word.partition("=")[0]
    return [f"{key}={value}" for value in override.sweep_string_iterator()]
