"""What a mixture's sources are validated with apart.

Legend: N validated rows (texts, pairs or tokens).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from alignlab.types.language import LabelledBatch, PreferenceBatch, TokenBatch


class BySource:
    """Means over the rows of each source, `loss_chats` beside `loss`; nothing where data come from one place."""

    names: tuple[str, ...] = ()

    def of(self, batch: TokenBatch | PreferenceBatch | LabelledBatch, rows: Tensor) -> Tensor:
        """(N,) int64: numbers of the sources of some of a batch's rows."""
        if batch.sources is None:
            return torch.zeros_like(rows)
        self.names = batch.sources.names
        return batch.sources.number[rows]

    def beside(self, terms: Tensor, batch: TokenBatch | PreferenceBatch | LabelledBatch, rows: Tensor) -> Tensor:
        """Terms (N, K) of some of a batch's rows with the numbers of their sources as a last column, (N, K + 1)."""
        return torch.cat([terms, self.of(batch, rows)[:, None].to(terms.dtype)], 1)

    def means(self, source: Tensor, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of values (N,) with their sources (N,), those of all ranks; no name stands here before a batch was seen."""
        of_source = {name: (source == number).float() for number, name in enumerate(self.names)}
        return {
            f"{key}_{name}": (value * chosen).sum() / chosen.sum()
            for key, value in values.items()
            for name, chosen in of_source.items()
        }
