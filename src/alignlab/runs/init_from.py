"""Starts a run with another run's weights (`init_from=`): what fits is taken, and everything else is said."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import lightning
from torch import Tensor

from alignlab.callbacks.keeping.checkpoint_folder import trained
from alignlab.files.runs import newest_run
from alignlab.files.weights import few, read_file, weights_of


def start_from(place: str, system: lightning.LightningModule) -> list[str]:
    """Gives a system the weights of a run directory, a checkpoint or a file of weights; says in a line each what was
    taken, left out and begins anew.

    A weight is taken where name and shape are equal: its own name, that within `net.`, or one of the method's
    `renames`.

    Raises:
        ValueError: there are no weights, or none of them fits.
    """
    file = _checkpoint(Path(place))
    weights = weights_of(read_file(file, "init_from"), file, "init_from")
    system.configure_model()
    own, renames = system.state_dict(), getattr(system, "renames", {})
    taken: dict[str, Tensor] = {}
    left: list[str] = []
    for name, value in weights.items():
        fitting = (n for n in _names(name, renames) if n in own and own[n].shape == value.shape and n not in taken)
        if (chosen := next(fitting, None)) is None:
            left.append(name)
        else:
            taken[chosen] = value
    if not any(name.startswith("net.") for name in taken):
        raise ValueError(
            f"init_from: nothing in {file} fits this net: it has {few(list(weights))}, the net {few(list(own))}"
        )
    system.load_state_dict(taken, strict=False)
    if hasattr(system, "settle"):
        system.settle(taken)
    lines = {"taken": list(taken), "left out": left, "begins anew": [name for name in own if name not in taken]}
    return [f"init_from: {len(names)} of {file} {kind}: {few(names)}" for kind, names in lines.items() if names]


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
