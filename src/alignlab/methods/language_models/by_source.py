"""What is told of a mixture's sources apart, in training and of held-out rows.

Legend: N rows (texts, pairs or tokens), P pairs, K values of a row, S sources.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from alignlab.distributed.collectives import all_gather
from alignlab.types.language import LabelledBatch, PreferenceBatch, TokenBatch

Batch = TokenBatch | PreferenceBatch | LabelledBatch


class BySource:
    """Means over the rows of each source, `loss_chats` beside `loss`; nothing where data come from one place."""

    names: tuple[str, ...] = ()

    def of(self, batch: Batch, rows: Tensor) -> Tensor:
        """(N,) int64: numbers of the sources of some of a batch's rows."""
        if batch.sources is None:
            return torch.zeros_like(rows)
        self.names = batch.sources.names
        return batch.sources.number[rows]

    @torch.no_grad()
    def tallies(self, values: Mapping[str, Tensor], batch: Batch, rows: Tensor) -> dict[str, Tensor]:
        """Sum and number of each source's values, (2,), as `loss_chats`; `values` (N,) of these rows of the batch."""
        if batch.sources is None:
            return {}
        return self._sums(self.of(batch, rows), values)

    def of_pairs(self, loss: Tensor, right: Tensor, batch: PreferenceBatch) -> dict[str, Tensor]:
        """Tallies of each pair's loss and of whether the preferred text is before the other, (P,)."""
        return self.tallies({"loss": loss, "accuracy": right}, batch, batch.first)

    def beside(self, terms: Tensor, batch: Batch, rows: Tensor) -> Tensor:
        """Terms (N, K) of some of a batch's rows with the numbers of their sources as a last column, (N, K + 1)."""
        return torch.cat([terms, self.of(batch, rows)[:, None].to(terms.dtype)], 1)

    def means(self, source: Tensor, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of values (N,) with their sources (N,), those of all ranks; no name stands here before a batch was seen."""
        return {name: total / number for name, (total, number) in self._sums(source, values).items()}

    def sums(self, values: Tensor, batch: Batch, rows: Tensor) -> Tensor:
        """Of values (N, K) of these rows, exact: their sums and their number for each source, (S, K + 1) in float64."""
        each = torch.cat([values, torch.ones_like(values[:, :1])], 1).double()
        source = self.of(batch, rows)
        return each.new_zeros(max(len(self.names), 1), each.shape[1]).index_add_(0, source, each)

    def gathered(self, kept: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Means (K,) in float64 of what `sums` gave, over all batches and ranks, and the first one for each source as
        `loss_chats`; `kept` is emptied.
        """
        sums = all_gather(torch.stack(kept).sum(0, keepdim=True)).sum(0)  # (S, K + 1)
        kept.clear()
        apart = zip(self.names, (sums[:, 0] / sums[:, -1]).float(), strict=False)
        *totals, number = sums.sum(0)
        return torch.stack(totals) / number, {f"loss_{name}": mean for name, mean in apart}

    def _sums(self, source: Tensor, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sum and number, (2,), of the values (N,) of each source."""
        of_source = {name: (source == number).float() for number, name in enumerate(self.names)}
        return {
            f"{key}_{name}": torch.stack([(value * chosen).sum(), chosen.sum()])
            for key, value in values.items()
            for name, chosen in of_source.items()
        }
