"""One reader of weights for every door: what a file is, by its content; what of it are weights, safely; which names
wrappers have added.

Nothing in a file is ever run: pickles are read with torch's `weights_only`, and classes it doesn't know become empty
placeholders.
"""

import logging
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alignlab.files.kinds import few, is_of_torch, kind_of_file, line_of
from alignlab.files.safetensors import read_safetensors

log = logging.getLogger(__name__)

_TORCH_PICKLE = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number that torch's files before 1.6 begin with
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_forward_module.")
_NAMES = (
    "state_dict",
    "model",
    "model_state_dict",
    "net",
    "module",
    "network",
    "weights",
    "params",
)  # most usual first
_LAYOUTS = (
    ("visual_encoder.blocks.", "these are names of ALBEF's published checkpoints: `alignlab convert from-albef` first"),
    (
        "_conv_stem.",
        "these are names of EfficientNet-Lite-PyTorch: `alignlab convert from-efficientnet-lite FILE "
        "lite0.safetensors` first",
    ),
    ("vision_model.", "these are names of transformers' CLIP or SigLIP: model/net=pretrained reads its folder"),
    (
        "visual.",
        "these are names of open_clip's nets, which aren't read; take the same weights in transformers' format",
    ),
    (".lora_A.", "this is a LoRA adapter: language models read its folder"),
    ("lm_head.", "this is a language model: give its folder, with config.json, as the path of its net"),
)


def read_file(path: Path, what: str) -> dict[str, Any]:
    """The content of a file of weights, on the host; of safetensors as {"state_dict": ...}.

    what: the key or command that the file was given to, for messages. Raises ValueError, one line, for what can't be
    read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise ValueError(f"{what}: {path} can't be read ({error.strerror})") from error
    if zipfile.is_zipfile(path):
        return _unpickled(path, what, mapped=is_of_torch(path, what))
    if head.startswith(_TORCH_PICKLE):
        return _unpickled(path, what, mapped=False)
    if head[8:9] == b"{":
        return {"state_dict": read_safetensors(path, what)}
    raise ValueError(f"{what}: {path} {kind_of_file(path, head)}")


def weights_of(content: Any, path: Path, what: str) -> dict[str, Tensor]:
    """The state dict within a file's content, under the names that its module gave: without what DDP, FSDP,
    torch.compile have put before.

    Raises ValueError if there is none, or several of which none has a usual name.
    """
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{what}: {path} holds a whole {type(content).__name__} and not its weights; save its state_dict()"
        )
    candidates = dict(_candidates(content, ()))
    if not candidates:
        keys = ", ".join(map(str, list(content)[:8])) or "nothing"
        raise ValueError(f"{what}: {path} has no state_dict and no other weights in it (there is: {keys})")
    chosen = min(candidates, key=lambda place: (len(place), _rank_of(place), place))
    others = [place for place in candidates if place != chosen]
    if others and _rank_of(chosen) == len(_NAMES):
        raise ValueError(
            f"{what}: {path} has weights under several names ({', '.join(map(_dotted, candidates))}); save the "
            "wanted one alone"
        )
    if chosen not in ((), ("state_dict",)) or others:
        left = f"; left out: {', '.join(map(_dotted, others))}" if others else ""
        log.info("%s: the weights of %s are those under %s%s", what, path, _dotted(chosen) or "its top level", left)
    return without_wrappers(candidates[chosen])


def without_wrappers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without what wrappers of modules add: `module.` where all have it, torch.compile's and FSDP's anywhere."""
    plain = dict(state)
    for wrapper in _WRAPPERS:
        plain = {name.replace(wrapper, ""): value for name, value in plain.items()}
    while plain and all(name.startswith("module.") for name in plain):
        plain = {name.removeprefix("module."): value for name, value in plain.items()}
    return plain if len(plain) == len(state) else dict(state)


def load_into(module: nn.Module, state: Mapping[str, Tensor], path: Path, what: str) -> None:
    """Loads weights of a system, or of its net alone, strictly.

    Raises ValueError, one line: what is missing, unexpected, of another shape, and whose names these look like.
    """
    wanted = module.state_dict()
    forms = (dict(state), {f"net.{name}": value for name, value in state.items()})
    chosen = max(forms, key=lambda form: len(form.keys() & wanted.keys()))  # the first of equals
    try:
        module.load_state_dict(chosen)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{what}: {path} doesn't fit the model: {difference(chosen, wanted) or line_of(error)}"
        ) from error


def difference(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """How some weights differ from those of a model, in one line; empty where names and shapes are equal."""
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    parts = {
        "missing": [name for name in wanted if name not in state],
        "unexpected": [name for name in state if name not in wanted],
        "of another shape": shapes,
    }
    said = [f"{kind}: {few(names)}" for kind, names in parts.items() if names]
    said += [
        hint
        for part, hint in _LAYOUTS
        if any(part in f".{name}" or name.startswith(part) for name in parts["unexpected"])
    ][:1]
    return "; ".join(said)


def _dotted(place: tuple[str, ...]) -> str:
    return ".".join(place)


def _rank_of(place: tuple[str, ...]) -> int:
    return _NAMES.index(place[-1]) if place and place[-1] in _NAMES else 0 if not place else len(_NAMES)


def _candidates(content: Mapping, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """State dicts in a file by their place: dicts from strings to tensors alone; those of optimizers are none."""
    if "param_groups" in content or len(place) > 3 or not all(isinstance(key, str) for key in content):
        return
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors and all(isinstance(v, Tensor) or key.endswith("_extra_state") for key, v in content.items()):
        yield place, tensors
        return
    for key, value in content.items():
        if isinstance(value, Mapping) and not key.startswith(
            ("optim", "lr_sched", "scheduler", "random", "callbacks", "loops")
        ):
            yield from _candidates(value, (*place, key))
    if tensors and place == () and any("." in key for key in tensors):  # weights beside an epoch's number, say
        yield place, tensors


class _Unknown:
    """What an object of a class that isn't torch's becomes: nothing of it is kept."""

    def __new__(cls, *_: Any, **__: Any) -> "_Unknown":
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


def _unpickled(path: Path, what: str, *, mapped: bool) -> Any:
    """A torch file; objects beside the weights, such as an argparse.Namespace, are left empty."""
    unknown: dict[str, type] = {}
    for _ in range(200):
        try:
            with torch.serialization.safe_globals([(kind, name) for name, kind in unknown.items()]):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except pickle.UnpicklingError as error:
            refused = re.search(r"GLOBAL ([\w.]+) was not an allowed global", str(error))
            if refused is None or refused[1] in unknown:
                reason = re.search(r"WeightsUnpickler error: (.*)", str(error))
                blocked = re.search(r"GLOBAL ([\w.]+)", str(error))
                why = f"it wants {blocked[1]} to be called" if blocked else (reason[1] if reason else line_of(error))
                raise ValueError(
                    f"{what}: {path} can't be read without running code that is in it ({why}); save its state_dict() "
                    "where you trust it"
                ) from error
            unknown[refused[1]] = type(refused[1].rpartition(".")[2], (_Unknown,), {"__module__": refused[1]})
        except Exception as error:  # whatever a damaged pickle leads to
            raise ValueError(f"{what}: {path} is damaged ({line_of(error)}); fetch or write it again") from error
    raise ValueError(f"{what}: {path} names more than 200 unknown classes; save its state_dict() where you trust it")
