"""Starts a run with another run's weights (`init_from=`): what fits is taken, and everything else is said."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import lightning
import torch
from torch import Tensor, nn

from alignlab.callbacks.keeping.checkpoint_folder import trained
from alignlab.files.runs import newest_run
from alignlab.files.weights import few, read_file, weights_of


def start_from(place: str, system: lightning.LightningModule, *, same_words: bool = True) -> list[str]:
    """Gives a system the weights of a run directory, a checkpoint or a file of weights; says in a line each what was
    taken, left out and begins anew.

    A weight is taken where name and shape are equal: its own name, that within `net.`, or one of the method's
    `renames`. same_words: the vocabulary is that of the run with perhaps more words behind; what has a row for each
    word (`rows_of_words`) takes the rows that there are.

    Raises:
        ValueError: there are no weights, or none of them fits.
    """
    file = _checkpoint(Path(place))
    weights = weights_of(read_file(file, "init_from"), file, "init_from")
    system.configure_model()
    own = system.state_dict()
    grown = same_words and (newest_run(place, holding="checkpoints") / "tokenizer").is_dir()
    taken, left = fitting(weights, system, grown=grown)
    if not any(name.startswith("net.") for name in taken):
        raise ValueError(
            f"init_from: nothing in {file} fits this net: it has {few(list(weights))}, the net {few(list(own))}"
        )
    system.load_state_dict(taken, strict=False)
    if hasattr(system, "settle"):
        system.settle(taken)
    more = [name for name, value in weights.items() if name in taken and taken[name].shape != value.shape]
    lines = {"taken": list(taken), "left out": left, "begins anew": [name for name in own if name not in taken]}
    lines["got rows for new words"] = more
    return [f"init_from: {len(names)} of {file} {kind}: {few(names)}" for kind, names in lines.items() if names]


def fitting(
    weights: Mapping[str, Tensor], module: nn.Module, *, grown: bool = False
) -> tuple[dict[str, Tensor], list[str]]:
    """What of another's weights fits a module, under the names that it has here, and names of the rest.

    module: a method, or the system that runs one. grown: see `start_from`.
    """
    own, renames = module.state_dict(), getattr(module, "renames", {})
    words = getattr(module, "rows_of_words", ()) if grown else ()
    taken: dict[str, Tensor] = {}
    left: list[str] = []
    for name, value in weights.items():
        free = (n for n in _names(name, renames) if n in own and n not in taken)
        fits = ((n, _fitted(value, own[n], n.endswith(words))) for n in free)
        chosen, fitted = next(((n, x) for n, x in fits if x is not None), (None, None))
        if chosen is None:
            left.append(name)
        else:
            taken[chosen] = fitted
    return taken, left


def _fitted(value: Tensor, own: Tensor, grows: bool) -> Tensor | None:
    """A weight in the place of another: as it is, or with that one's further rows; None where it doesn't fit."""
    if value.shape == own.shape:
        return value
    if not grows or value.shape[1:] != own.shape[1:] or len(value) > len(own):
        return None
    return torch.cat([value.to(own), own[len(value) :]])


def _checkpoint(place: Path) -> Path:
    place = newest_run(place, holding="checkpoints")
    file = trained(place) or place
    if not file.is_file():
        raise ValueError(
            f"init_from: {place} is neither a file of weights nor a run directory with checkpoints/last.ckpt"
        )
    return file


def _names(name: str, renames: Mapping[str, str]) -> Iterator[str]:
    """What a weight may be called here, the likeliest first."""
    yield name
    yield f"net.{name}"
    yield from (new + name.removeprefix(old) for old, new in renames.items() if name.startswith(old))
