"""Zero-shot classification with an ensemble of prompts a class (arXiv:2103.00020, sec. 3.1.4), for any two-tower
model.

Legend: B pictures, C classes, P prompts a class, T tokens, D joint embedding.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from alignlab.evaluation.encoding import crop_padding, gather_rows
from alignlab.evaluation.retrieval import hits
from alignlab.types.pairs import ClassificationBatch, ClassPrompts, ImageEncoding, TextEncoding


@torch.no_grad()
def class_embeddings(
    encode_text: Callable[[Tensor, Tensor], TextEncoding],
    prompts: ClassPrompts,
    *,
    device: torch.device | str = "cpu",
    texts_per_pass: int = 256,
) -> Tensor:
    """One direction a class: the mean of its prompts' normalised features, normalised again: (C, P, T) -> (C, D)."""
    classes, number, _ = prompts.ids.shape
    ids, mask = crop_padding(prompts.ids.flatten(0, 1), prompts.mask.flatten(0, 1))
    passes = zip(ids.split(texts_per_pass), mask.split(texts_per_pass), strict=True)
    features = [encode_text(i.to(device), m.to(device)).features.float() for i, m in passes]
    features = F.normalize(torch.cat(features), dim=-1).view(classes, number, -1)
    return F.normalize(features.mean(1), dim=-1)


@torch.no_grad()
def encode_labelled(
    encode_image: Callable[[Tensor], ImageEncoding],
    batches: Iterable[ClassificationBatch],
    *,
    transfer: Callable[[ClassificationBatch], ClassificationBatch] = lambda batch: batch,
) -> tuple[Tensor, Tensor]:
    """Features (M, D) and labels (M,) of all pictures: every rank encodes the batches it is given, all get all.

    Raises ValueError if there is no picture.
    """
    features, labels = [], []
    for batch in batches:
        batch = transfer(batch)
        features.append(encode_image(batch.image).features.float())
        labels.append(batch.label)
    device = features[0].device if features else "cpu"
    label = gather_rows(torch.cat(labels) if labels else torch.zeros(0, dtype=torch.int64, device=device))
    if len(label) == 0:
        raise ValueError("the classification set is empty")
    return gather_rows(torch.cat(features) if features else torch.zeros(0, 0, device=device)), label


def classification_scores(score: Tensor, label: Tensor, ks: Sequence[int] = (1, 5)) -> dict[str, float]:
    """Accuracy at k and mean recall over the classes that occur: scores (M, C), labels (M,) -> {name: value in [0,
    1]}.

    Tied classes count as if in random order. An accuracy at k >= C says nothing and is left out.
    Raises ValueError for a label outside 0..C-1.
    """
    num_classes = score.shape[1]
    low, high = int(label.min()), int(label.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"label {low if low < 0 else high} is outside the {num_classes} classes 0..{num_classes - 1}")
    ks = [1, *(k for k in ks if 1 < k < num_classes)]
    hit = hits(score, F.one_hot(label, num_classes).bool(), ks)  # (M, len(ks))
    total = torch.bincount(label, minlength=num_classes)
    recall = hit.new_zeros(num_classes).index_add_(0, label, hit[:, 0]) / total.clamp(min=1)
    values = [*hit.mean(0), recall.sum() / (total > 0).sum()]
    names = [*(f"accuracy_at_{k}" for k in ks), "mean_per_class_recall"]
    return dict(zip(names, torch.stack(values).tolist(), strict=True))
