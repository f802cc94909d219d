"""`alignlab average`: the mean of several language models' weights as one model (model soups, arXiv:2203.05482).

Policies that a reward has trained from one start, averaged, pay less KL for what they gained, and a mean with the start
turns them back towards it (WARP, arXiv:2406.16768).
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NOTE = "averaged.json"


def add(commands: "argparse._SubParsersAction") -> None:
    """Adds the command to a parser."""
    command = commands.add_parser(
        "average",
        help="the mean of several language models' weights",
        description="Runs or folders of one architecture and one tokenizer, which began from the same weights, as one "
        "model (arXiv:2203.05482, arXiv:2406.16768). Adapters are merged first.",
    )
    command.add_argument("target", type=Path, help="a new folder in transformers' format")
    command.add_argument("models", nargs="+", help="run directories, folders, packages")
    command.add_argument(
        "--shares", type=float, nargs="+", help="of each, with a sum of 1 (one below 0 leads away); default: equal"
    )
    command.set_defaults(run=_average)


def _average(options: argparse.Namespace) -> None:
    tensors = average(options.models, options.target, options.shares)
    print(f"{options.target}: {len(options.models)} models' mean, {tensors} tensors")


def average(models: Sequence[str], target: Path, shares: Sequence[float] | None = None) -> int:
    """Writes the models' weighted mean; returns the number of its tensors.

    Added up in float64 and stored in the first model's dtype, with its config and tokenizer; `averaged.json` beside it
    names all models, their shares and their fingerprints.

    Args:
        models: two or more, as `model=` of infer.py takes them.
        target: a new folder: weights, config, tokenizer, check sums.
        shares: of each model, with a sum of 1; None: equal ones.

    Raises:
        ValueError, one line: fewer than two, shares that don't fit, models or tokenizers that differ, a target that
            is there already.
    """
    if len(models) < 2:
        raise ValueError("average: name two models or more")
    if target.exists():
        raise ValueError(f"average: {target} is there already; name a new folder")
    shares = [1 / len(models)] * len(models) if shares is None else list(shares)
    if len(shares) != len(models) or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(
            f"average: shares are {shares}; there is one for each of {len(models)} models, and they add to 1"
        )

    from transformers.utils import logging

    from alignlab.files.checksums import fingerprint, write_sums
    from alignlab.files.writing import write_folder
    from alignlab.models.language.paths import export_folder, load_tokenizer, resolve_model
    from alignlab.tools.merge import stored_dtype

    logging.disable_progress_bar()
    tokenizer = load_tokenizer(models[0])
    if other := [place for place in models if load_tokenizer(place).get_vocab() != tokenizer.get_vocab()]:
        raise ValueError(f"average: {other[0]} has another tokenizer than {models[0]}")
    whole = _mean(models, shares).to(stored_dtype(resolve_model(models[0])[0]))
    made_of = [
        {"model": place, "share": share, "fingerprint": fingerprint(export_folder(place))}
        for place, share in zip(models, shares, strict=True)
    ]

    def write(folder: Path) -> None:
        whole.save_pretrained(folder)
        if (ends := export_folder(models[0]) / "generation_config.json").is_file():
            shutil.copy(ends, folder)
        tokenizer.save_pretrained(folder)
        (folder / _NOTE).write_text(json.dumps(made_of, indent=2) + "\n", encoding="utf-8")
        write_sums(folder)

    write_folder(target, write)
    return len(whole.state_dict())


def _mean(models: Sequence[str], shares: Sequence[float]) -> "PreTrainedModel":
    """The first model with the mean's weights."""
    from alignlab.models.language.loading import load_language_model
    from alignlab.models.language.lora import merged

    whole, mean = None, {}
    for place, share in zip(models, shares, strict=True):
        net = load_language_model(place)
        net = merged(net) if hasattr(net, "peft_config") else net
        state = net.state_dict()
        if whole is not None and (wrong := _difference(whole.state_dict(), state)):
            raise ValueError(f"average: {place} is another net than {models[0]}: {wrong}")
        whole = net if whole is None else whole
        mean = {name: mean.get(name, 0.0) + share * value.double() for name, value in state.items()}
    whole.load_state_dict(mean)
    return whole


def _difference(mine: dict, others: dict) -> str | None:
    """The first tensor that only one of two nets has, or has in another shape."""
    for name in sorted(mine.keys() | others.keys()):
        shapes = [tuple(state[name].shape) if name in state else "missing" for state in (mine, others)]
        if shapes[0] != shapes[1]:
            return f"{name} is {shapes[1]}, not {shapes[0]}"
    return None
