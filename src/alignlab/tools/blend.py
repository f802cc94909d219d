"""Weights between those that a run began from and those that it came to (WiSE-FT, arXiv:2109.01903, eq. 1):
(1 - alpha) start + alpha end, what each is worth on the run's own held-out pictures and on classes that the start knew.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from alignlab.evaluation.encoding import encode_retrieval_set
from alignlab.evaluation.retrieval import recall_from_features, similarity
from alignlab.evaluation.zero_shot import class_embeddings
from alignlab.files.runs import newest_run
from alignlab.files.writing import write_folder
from alignlab.models.clip import Clip
from alignlab.models.low_rank import merge_low_rank
from alignlab.models.released.source import read_released, weights_of_released
from alignlab.models.released.writing import write_transformers
from alignlab.runs.building import load_system
from alignlab.runs.resuming import saved_config
from alignlab.tasks.pictures.subject import VisionLanguage, find_pictures
from alignlab.types.pairs import ClassPrompts


class Point(NamedTuple):
    """A place on the line between start and end."""

    alpha: float  # 0: the start
    recall: float  # at 1, mean of both ways, on the run's held-out pictures
    accuracy: float | None  # zero-shot, on the folder of classes


def blend(
    run_dir: Path,
    alphas: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    start: str | None = None,
    classes: Path | None = None,
    template: str = "a photo of a {}",
    target: Path | None = None,
) -> list[Point]:
    """What the weights at each alpha are worth.

    Args:
        start: the released net; None: the run's own `model.net.path`.
        classes: a folder with a folder of pictures for each class, by its name.
        target: a new folder in transformers' format for the weights of a single alpha.

    Raises:
        ValueError, one line: the run isn't one of CLIP or SigLIP from a released net, or the classes aren't two.
    """
    if wrong := [alpha for alpha in alphas if not 0 <= alpha <= 1]:
        raise ValueError(f"alphas: {wrong[0]} isn't between 0 and 1")
    if target is not None and (target.exists() or len(alphas) != 1):
        raise ValueError(f"to={target}: name a new folder, and one of alphas")
    run_dir = newest_run(run_dir, holding="checkpoints")
    system, data = load_system(run_dir)
    if not isinstance(system.net, Clip):
        raise ValueError(f"{run_dir} is a run of {type(system.net).__name__}; CLIP and SigLIP are blended")
    start = start or saved_config(run_dir).model.get("net", {}).get("path")
    if start is None:
        raise ValueError(f"{run_dir} began from no released net; name what it began from as start")
    first = weights_of_released(read_released(start, "start"))
    last = {name: value.clone() for name, value in merge_low_rank(system.net).state_dict().items()}
    if wrong := [name for name, value in last.items() if name not in first or first[name].shape != value.shape]:
        raise ValueError(f"start={start}: {wrong[0]} is another than the run's: was the picture size changed?")
    subject, points = VisionLanguage(system, data, run_dir, batch_size=32), []
    for alpha in alphas:
        system.net.load_state_dict(between(first, last, alpha))
        accuracy = None if classes is None else _accuracy(subject, classes, template)
        points.append(Point(alpha, _recall(subject), accuracy))
    if target is not None:
        more = (data.tokenizer, *data.recipes, data.source_folder)
        write_folder(target, lambda place: write_transformers(system.net, place, *more))
    return points


def between(first: dict[str, Tensor], last: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """(1 - alpha) first + alpha last; the ends are exactly themselves."""
    if alpha in (0, 1):
        return last if alpha else {name: first[name] for name in last}
    return {name: torch.lerp(first[name].float(), value.float(), alpha) for name, value in last.items()}


@torch.no_grad()
def _recall(subject: VisionLanguage) -> float:
    encoded = encode_retrieval_set(subject.system, subject.datamodule.retrieval_dataloader())
    recall = recall_from_features(encoded.text_features, encoded.image_features, encoded.image_of_text, ks=(1,))
    return sum(recall.values()) / len(recall)


def _accuracy(subject: VisionLanguage, classes: Path, template: str) -> float:
    names = sorted(place.name for place in classes.iterdir() if place.is_dir())
    if len(names) < 2:
        raise ValueError(f"classes={classes}: at least two folders of pictures are needed, one a class")
    ids, mask = subject.datamodule.encode_texts([template.replace("{}", name.replace("_", " ")) for name in names])
    directions = class_embeddings(subject.system.encode_text, ClassPrompts(names, ids[:, None], mask[:, None]))
    right = number = 0
    for label, name in enumerate(names):
        for _, features, errors in subject.picture_batches(find_pictures(str(classes / name), "classes")):
            if errors:
                raise ValueError(f"classes: {next(iter(errors.values()))}")
            right += int((similarity(features, directions).argmax(1) == label).sum())
            number += len(features)
    return right / number
