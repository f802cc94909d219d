"""Zero-shot classification during training."""

from collections.abc import Sequence

import lightning

from alignlab.callbacks.evaluators.evaluator import Evaluator, Every, read_by, transfer
from alignlab.evaluation.retrieval import similarity
from alignlab.evaluation.zero_shot import class_embeddings, classification_scores, encode_labelled


class ZeroShotEvaluator(Evaluator):
    """Accuracy at 1 and 5 and mean recall of the classes on every set of `datamodule.zero_shot_sets()`.

    Ranks: as `Evaluator`; scores are gathered.

    `sets` names the ones to use, None all of them. A picture's class is the one whose prompts lie nearest; no matching
    head.
    """

    def __init__(self, every: Every = "validation", sets: Sequence[str] | None = None) -> None:
        super().__init__(every)
        self.sets = sets

    def evaluate(self, trainer: lightning.Trainer, module: lightning.LightningModule, last: bool) -> dict[str, float]:
        available = read_by(trainer, "zero_shot", "zero_shot_sets").zero_shot_sets()
        unknown = set(self.sets or ()) - set(available)
        if unknown:
            raise ValueError(f"sets names {sorted(unknown)}; there are {sorted(available)}")
        metrics = {}
        for name in available if self.sets is None else self.sets:
            problem = available[name]
            classes = class_embeddings(module.encode_text, problem.prompts, device=module.device)
            features, label = encode_labelled(module.encode_image, problem.batches, transfer=transfer(trainer, module))
            scores = classification_scores(similarity(features, classes), label)
            metrics |= {f"zero_shot_{name}_{metric}": value for metric, value in scores.items()}
        return metrics
