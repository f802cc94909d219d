"""What answers are worth, by kind of question, over all batches of a validation and all ranks."""

from collections.abc import Sequence

from torch import Tensor

from alignlab.distributed.collectives import gather_objects


class WorthByKind:
    """Sums of credit of each kind; `means` forgets them."""

    def __init__(self) -> None:
        self._counted: dict[str, tuple[int, float]] = {}

    def add(self, kinds: Sequence[str], credit: Tensor) -> None:
        """A batch: B kinds and what the answer to each question is worth, (B,)."""
        for kind, worth in zip(kinds, credit.tolist(), strict=True):
            count, total = self._counted.get(kind, (0, 0.0))
            self._counted[kind] = (count + 1, total + worth)

    def means(self) -> dict[str, float]:
        """Kind -> mean over all ranks, which all ask for it together."""
        everywhere, self._counted = gather_objects(self._counted), {}
        kinds = sorted({kind for counted in everywhere for kind in counted})
        of = {kind: [counted[kind] for counted in everywhere if kind in counted] for kind in kinds}
        return {kind: sum(x[1] for x in of[kind]) / sum(x[0] for x in of[kind]) for kind in kinds}
