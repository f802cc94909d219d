"""What a run that was fine-tuned for answers or labels says of pictures: for `task=answer` and `alignlab.load`.

Legend: P pictures of a row, T tokens, N answers or labels.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from alignlab.data.picture_tasks.rows import GREY
from alignlab.types.picture_tasks import Answers

NO_NAMES = (
    "needs a run that was fine-tuned for answers or labels, such as model=albef_vqa, albef_entailment or albef_nlvr2"
)
WORDS = 6  # of a decoder's own answer, at most


class Answered(NamedTuple):
    """The likeliest answer or label, and what the others are given."""

    answer: str
    probability: float
    probabilities: dict[str, float]  # of the likeliest ones, in that order, among all that the run knows
    free: str | None  # a decoder's own words


def names_of(data: Any) -> list[str]:
    """The answers or labels that a run chooses from; none where it wasn't fine-tuned for such."""
    source = data.source
    return list(getattr(source, "answers", None) or getattr(source, "labels", None) or ())


def pictures_of(system: Any) -> int:
    """How many pictures a run looks at for one text."""
    return 1 if hasattr(system.net, "ask") else getattr(system.net, "pictures", getattr(system, "pictures", 1))


def asked(
    system: Any, data: Any, image: Tensor, text: str, names: list[str], *, top_k: int, shortlist: int | None = None
) -> Answered:
    """What is said to a text about the pictures of one row, (1, P, 3, H, W), normalised. A run that was blind to
    pictures or texts (`data.hide`) stays so.

    Raises ValueError where the run looks at another number of pictures.
    """
    if data.hide == "pictures":
        image = data.normalise(torch.full(image.shape, GREY, dtype=torch.uint8, device=image.device))
    ids, mask = (x.to(image.device) for x in data.encode_texts(["" if data.hide == "texts" else text]))
    scores, free = _scores(system, data, image, ids, mask, names, shortlist)
    best = scores.softmax(0).topk(min(top_k, len(names)))
    chances = {names[k]: p for p, k in zip(best.values.tolist(), best.indices.tolist(), strict=True)}
    first = next(iter(chances))
    return Answered(first, chances[first], chances, free)


def _scores(
    system: Any, data: Any, image: Tensor, ids: Tensor, mask: Tensor, names: list[str], shortlist: int | None
) -> tuple[Tensor, str | None]:
    """(N,) a number for each name whose softmax is its probability, and the words of a decoder; ids, mask (1, T)."""
    net, vocabulary, pictures = system.net, data.vocabulary, image.shape[1]
    given = f"{pictures} picture{'s' if pictures != 1 else ''}"
    with torch.no_grad():
        if not hasattr(net, "ask"):
            if pictures != (wanted := pictures_of(system)):
                raise ValueError(f"{given}, but this run looks at {wanted}")
            return net(image, ids, mask)[0].float(), None
        if pictures != 1:
            raise ValueError(f"{given}, but a question is about one")
        states = net.ask(image[:, 0], ids, mask)
        candidates = Answers(*(x.to(image.device) for x in data.encode_answers(names)))
        scores = net.rank(states, candidates, shortlist)[0]
        written = net.write(states, vocabulary.cls_id, vocabulary.sep_id, WORDS)
    words = written.ids[0, 1:][written.mask[0, 1:]]
    return scores.float(), data.tokenizer.decode(words[words != vocabulary.sep_id].tolist())
