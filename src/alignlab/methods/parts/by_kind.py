"""What answers are worth, by kind of question, over all batches of a validation and all ranks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from alignlab.distributed.collectives import gather_objects


class WorthByKind:
    """Mean credit of each kind; `means` forgets what was added."""

    def __init__(self) -> None:
        self._added: list[tuple[Sequence[str], Tensor]] = []  # stays on the device: the host waits once, at the end

    def add(self, kinds: Sequence[str], credit: Tensor) -> None:
        """A batch: B kinds and what the answer to each question is worth, (B,)."""
        self._added.append((kinds, credit))

    def means(self) -> dict[str, float]:
        """Kind -> mean over all ranks, which all ask for it together."""
        everywhere, self._added = gather_objects(self._sums()), []
        kinds = sorted({kind for counted in everywhere for kind in counted})
        of = {kind: [counted[kind] for counted in everywhere if kind in counted] for kind in kinds}
        return {kind: sum(x[1] for x in of[kind]) / sum(x[0] for x in of[kind]) for kind in kinds}

    def _sums(self) -> dict[str, tuple[int, float]]:
        """Kind -> how many questions of it, and what their answers are worth together."""
        if not self._added:
            return {}
        sums: dict[str, tuple[int, float]] = {}
        every = torch.cat([credit for _, credit in self._added]).tolist()
        for kind, worth in zip((kind for kinds, _ in self._added for kind in kinds), every, strict=True):
            count, total = sums.get(kind, (0, 0.0))
            sums[kind] = (count + 1, total + worth)
        return sums
