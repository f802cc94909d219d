"""True captions against near misses on held-out pictures, during training."""

from collections.abc import Sequence, Sized

import lightning

from alignlab.callbacks.evaluators.evaluator import Evaluator, Every, most_batches, transfer
from alignlab.evaluation.foils import foil_scores, winoground


class FoilEvaluator(Evaluator):
    """Caption accuracy and Winoground's text, image and group score on every set of `datamodule.foil_sets()`.

    Logs `<set>_<score>` by similarity and, where the net can match, `matched_<set>_<score>` by the matching head;
    nothing where the data have no such sets.

    Ranks: as `Evaluator`; scores are gathered.

    Args:
        every: see `Evaluator`.
        sets: names of the ones to use; None: all of them.
        max_rows: of each set; None: all.

    Raises:
        ValueError: `sets` names one that isn't there, or fewer rows than 1.
    """

    def __init__(self, every: Every = "end", sets: Sequence[str] | None = None, max_rows: int | None = None) -> None:
        super().__init__(every)
        if max_rows is not None and max_rows < 1:
            raise ValueError(f"max_rows is {max_rows}; it must be at least 1, or null")
        self.sets, self.max_rows = sets, max_rows

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Refuses sets that the data lack now, not after hours."""
        if self.sets is not None:
            self._chosen(trainer, 1)

    def evaluate(self, trainer: lightning.Trainer, module: lightning.LightningModule, last: bool) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for name, batches in self._chosen(trainer, self.max_rows).items():
            limit = most_batches(trainer, len(batches))
            scores = foil_scores(module, batches, transfer=transfer(trainer, module), limit_batches=limit)
            for kind, prefix in (("similarity", ""), ("matching", "matched_")):
                if kind in scores:
                    metrics |= {f"{prefix}{name}_{key}": value for key, value in winoground(scores[kind]).items()}
        return metrics

    def _chosen(self, trainer: lightning.Trainer, most: int | None) -> dict[str, Sized]:
        limit = trainer.limit_val_batches
        if isinstance(limit, int):  # rows that nobody looks at needn't be made
            least = limit * trainer.datamodule.batch_size * trainer.world_size
            most = least if most is None else min(most, least)
        there = trainer.datamodule.foil_sets(most) if hasattr(trainer.datamodule, "foil_sets") else {}
        unknown = set(self.sets or ()) - set(there)
        if unknown:
            raise ValueError(f"sets names {sorted(unknown)}; there are {sorted(there) or 'none'}")
        return {name: there[name] for name in there if self.sets is None or name in self.sets}
