"""True captions against near misses on held-out pictures, during training."""

from collections.abc import Iterable, Sequence

import lightning

from alignlab.callbacks.evaluators.evaluator import Evaluator, Every, transfer
from alignlab.evaluation.foils import foil_scores, winoground


class FoilEvaluator(Evaluator):
    """Caption accuracy and Winoground's text, image and group score on every set of `datamodule.foil_sets()`.

    Logs `<set>_<score>` by similarity and, where the net can match, `matched_<set>_<score>` by the matching head;
    nothing where the data have no such sets.

    Ranks: as `Evaluator`; scores are gathered.

    Args:
        every: see `Evaluator`.
        sets: names of the ones to use; None: all of them.

    Raises:
        ValueError: `sets` names one that isn't there.
    """

    def __init__(self, every: Every = "end", sets: Sequence[str] | None = None) -> None:
        super().__init__(every)
        self.sets = sets

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Refuses sets that the data lack now, not after hours."""
        if self.sets is not None:
            self._chosen(trainer)

    def evaluate(self, trainer: lightning.Trainer, module: lightning.LightningModule, last: bool) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, batches in self._chosen(trainer).items():
            scores = foil_scores(module, batches, transfer=transfer(trainer, module))
            for kind, prefix in (("similarity", ""), ("matching", "matched_")):
                if kind in scores:
                    found |= {f"{prefix}{name}_{key}": value for key, value in winoground(scores[kind]).items()}
        return found

    def _chosen(self, trainer: lightning.Trainer) -> dict[str, Iterable]:
        there = getattr(trainer.datamodule, "foil_sets", dict)()
        unknown = set(self.sets or ()) - set(there)
        if unknown:
            raise ValueError(f"sets names {sorted(unknown)}; there are {sorted(there) or 'none'}")
        return {name: there[name] for name in there if self.sets is None or name in self.sets}
