"""How well rewards order texts: accuracy over pairs, calibration against the raters' shares, what length alone would
give.

Legend: N texts, P pairs.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor


def pair_metrics(difference: Tensor, share: Tensor, margin: Tensor, bins: int = 10) -> dict[str, float]:
    """Statistics of the reward differences r_1 - r_2 of P pairs of which raters prefer the first.

    accuracy: part with r_1 > r_2, ties a half; accuracy_above_1: of pairs whose ratings differ by more than 1; brier:
    mean (sigma(d) - s)^2; ece: expected calibration error, sum over `bins` equal bins of sigma(d) of |mean sigma(d) -
    mean s| times the bin's part of the pairs (arXiv:1706.04599, eq. 3), each pair taken in both orders; log_loss in
    nats; margin: mean d. All (P,).
    """
    right = (difference > 0).double() + 0.5 * (difference == 0).double()
    predicted = difference.double().sigmoid()
    metrics = {
        "accuracy": right.mean(),
        "margin": difference.double().mean(),
        "brier": (predicted - share).square().mean(),
        "ece": calibration_error(torch.cat([predicted, 1 - predicted]), torch.cat([share, 1 - share]), bins),
        "log_loss": torch.nn.functional.binary_cross_entropy_with_logits(difference.double(), share.double()),
    }
    wide = margin > 1
    if wide.any():
        metrics["accuracy_above_1"] = right[wide].mean()
    return {name: float(value) for name, value in metrics.items()}


def calibration_error(predicted: Tensor, share: Tensor, bins: int = 10) -> Tensor:
    """Expected calibration error of probabilities (P,) against observed shares (P,), bins of equal width."""
    place = (predicted * bins).long().clamp(0, bins - 1)
    gap = torch.zeros(bins, dtype=torch.float64).index_add(0, place, (predicted - share).double())
    return gap.abs().sum() / len(predicted)


def fitted_scale(difference: Tensor, share: Tensor, iterations: int = 30) -> float:
    """The factor k > 0 for which sigma(k d) fits the shares best (temperature scaling, arXiv:1706.04599, sec. 4.2):
    Newton on the mean log-loss.
    """
    d, share, k = difference.double(), share.double(), torch.ones((), dtype=torch.float64)
    for _ in range(iterations):
        predicted = (k * d).sigmoid()
        slope, curvature = ((predicted - share) * d).mean(), (predicted * (1 - predicted) * d * d).mean()
        k = (k - slope / curvature.clamp_min(1e-12)).clamp(k / 2, k * 2)
    return float(k)


def accuracy_by_decile(difference: Tensor, margin: Tensor) -> list[float]:
    """Accuracy of the tenths of the pairs with the smallest to the largest difference of ratings."""
    order = margin.argsort()
    return [float((part > 0).double().mean()) for part in difference[order].tensor_split(10) if len(part)]


def correlation(x: Tensor, y: Tensor) -> float:
    """Pearson's r; 0 if one of them doesn't vary."""
    x, y = x.double() - x.double().mean(), y.double() - y.double().mean()
    scale = x.norm() * y.norm()
    return float(x @ y / scale) if scale > 0 else 0.0


def all_pairs(num: int) -> tuple[Tensor, Tensor]:
    """Both members of each of the N (N - 1) / 2 pairs, (P,) and (P,)."""
    first, second = torch.triu_indices(num, num, 1)
    return first, second


def words_of(text: str) -> list[str]:
    """Words, numbers and punctuation marks in lower case."""
    return re.findall(r"[a-z]+(?:'[a-z]+)?|[0-9]+|[^\w\s]", text.lower())


class BagOfWords:
    """Ridge regression of mean ratings on the words and pairs of neighbouring words of a text: the baseline of a
    reward model.

    A text's features are 1 / sqrt(number of its features); features of fewer than two training texts are left out.
    Solved by conjugate gradients.
    """

    def __init__(self, texts: Sequence[str], ratings: Tensor, ridge: float = 0.3, iterations: int = 60) -> None:
        counts = Counter(feature for text in texts for feature in self._features(text))
        self.vocabulary = {feature: i for i, feature in enumerate(f for f, n in counts.items() if n > 1)}
        rows, self.offset = self._matrix(texts), ratings.double().mean()
        target = torch.mv(rows.t(), ratings.double() - self.offset)
        self.weight, residual = torch.zeros_like(target), target.clone()
        direction, square = residual.clone(), residual @ residual
        for _ in range(iterations):
            image = torch.mv(rows.t(), torch.mv(rows, direction)) + ridge * direction
            if square < 1e-20 * (target @ target):
                break
            step = square / (direction @ image)
            self.weight += step * direction
            residual = residual - step * image
            previous, square = square, residual @ residual
            direction = residual + square / previous * direction

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Predicted ratings (N,)."""
        return torch.mv(self._matrix(texts), self.weight) + self.offset

    @staticmethod
    def _features(text: str) -> set:
        words = words_of(text)
        return {*words, *pairwise(words)}

    def _matrix(self, texts: Sequence[str]) -> Tensor:
        places, values = [], []
        for row, text in enumerate(texts):
            known = [self.vocabulary[feature] for feature in self._features(text) if feature in self.vocabulary]
            places += [(row, column) for column in known]
            values += [max(1, len(known)) ** -0.5] * len(known)
        index = torch.tensor(places, dtype=torch.long).reshape(-1, 2).t()
        shape = (len(texts), len(self.vocabulary))
        return torch.sparse_coo_tensor(
            index, torch.tensor(values, dtype=torch.float64), shape, check_invariants=False
        ).coalesce()
