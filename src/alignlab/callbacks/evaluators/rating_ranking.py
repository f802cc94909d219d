"""How well a reward model orders held-out texts as their raters do: all pairs, beside a bag of
words and length alone.
"""

import lightning
import torch

from alignlab.callbacks.evaluators.evaluator import Evaluator, Every, read_by, transfer
from alignlab.evaluation.preference import (
    BagOfWords,
    accuracy_by_decile,
    all_pairs,
    correlation,
    fitted_scale,
    pair_metrics,
)


class RatingRanking(Evaluator):
    """Logs accuracy over all pairs of held-out texts (`val/all_pairs_accuracy`, `..._above_1`), calibration and
    correlations.

    Ranks: as `Evaluator`, but each rank scores all texts.

    The scale that calibrates is fitted to every other text; `all_pairs_ece` and `all_pairs_brier` are those of the
    rest.

    Args:
        baselines: the same accuracies of ridge regression on words and word pairs, and of the number of words (a few
            seconds).
    """

    def __init__(self, every: Every = "end", baselines: bool = True) -> None:
        super().__init__(every)
        self.baselines = baselines

    def evaluate(self, trainer: lightning.Trainer, module: lightning.LightningModule, last: bool) -> dict[str, float]:
        data, move = read_by(trainer, "rating_ranking", "rated_texts"), transfer(trainer, module)
        texts = data.rated_texts("val")
        reward = torch.zeros(len(texts), dtype=torch.float32)  # the default is another under bf16-true
        for batch in data.rated_batches("val", trainer.datamodule.renderer, trainer.datamodule.batch_size):
            reward[batch.index] = module.net(*move(batch)[:2]).float().cpu()
        words = torch.tensor([float(len(text.split())) for text in texts.texts], dtype=torch.float32)
        ratings, halves = torch.from_numpy(texts.means), torch.arange(len(texts)) % 2
        scale = fitted_scale(*self._pairs(reward, texts, halves == 0)[:2])
        calibrated = pair_metrics(*self._pairs(scale * reward, texts, halves == 1))
        every_text = torch.ones(len(texts), dtype=torch.bool)
        results = pair_metrics(*self._pairs(reward, texts, every_text))
        metrics = {f"all_pairs_{name}": results[name] for name in ("accuracy", "accuracy_above_1")}
        metrics |= {f"all_pairs_{name}": calibrated[name] for name in ("ece", "brier")}
        metrics |= {
            "reward_rating_correlation": correlation(reward, ratings),
            "reward_length_correlation": correlation(reward, words),
            "rating_length_correlation": correlation(ratings, words),
        }
        if last:
            difference, _, margin = self._pairs(reward, texts, every_text)
            tenths = accuracy_by_decile(difference, margin)
            metrics |= {f"margin_decile_{i}_accuracy": value for i, value in enumerate(tenths, 1)}
        if self.baselines and last:
            train = data.rated_texts("train")
            bag = BagOfWords(train.texts, torch.from_numpy(train.means))
            for name, score in (("bag_of_words", bag(texts.texts)), ("length", words)):
                metrics[f"{name}_accuracy_above_1"] = pair_metrics(*self._pairs(score, texts, every_text))[
                    "accuracy_above_1"
                ]
        return metrics

    @staticmethod
    def _pairs(score: torch.Tensor, texts: object, chosen: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Difference of scores, share and margin of all pairs of the chosen texts, the one with the larger share
        first.
        """
        places = chosen.nonzero().squeeze(1)
        first, second = (places[part] for part in all_pairs(len(places)))
        share = torch.from_numpy(texts.preference(first.numpy(), second.numpy()))
        ratings = torch.from_numpy(texts.means)
        sign = torch.where(share < 0.5, -1.0, 1.0)
        share = torch.where(share < 0.5, 1 - share, share)
        return sign * (score[first] - score[second]), share, sign * (ratings[first] - ratings[second])
