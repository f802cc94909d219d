"""How much a straight line reads from frozen features: multinomial logistic regression (arXiv:2103.00020, app. A.3).

Legend: M pictures, D features, C classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

WEIGHT_DECAYS = tuple(10.0**exponent for exponent in range(1, -6, -1))  # 10 to 1e-5


class LinearClassifier(NamedTuple):
    """Logits = (x - centre) / scale @ weight.T + bias."""

    weight: Tensor  # (C, D)
    bias: Tensor  # (C,)
    centre: Tensor  # (D,)
    scale: Tensor  # ()

    def logits(self, features: Tensor) -> Tensor:
        """(M, D) -> (M, C)."""
        return (features.to(self.weight) - self.centre) / self.scale @ self.weight.T + self.bias


class ProbeResult(NamedTuple):
    """Accuracies in [0, 1] and the weight decay that the held-out part of train chose."""

    accuracy: float
    train_accuracy: float
    weight_decay: float
    validation_accuracy: dict[float, float]  # of every weight decay tried; empty where one class allows no split


def fit_logistic_regression(
    features: Tensor,
    label: Tensor,
    num_classes: int,
    *,
    weight_decay: float,
    start: LinearClassifier | None = None,
    max_steps: int = 1000,
    tolerance: float = 1e-7,
) -> LinearClassifier:
    """Minimise mean cross-entropy + weight_decay / 2 * |weight|^2 with L-BFGS in double precision; the bias is free.

    Features are centred and divided by one number, their root mean square, which makes weight_decay independent of
    their scale. Convex: the result does not depend on `start`, which only saves steps. Stops where no gradient exceeds
    `tolerance`.
    """
    x = features.double()
    centre = x.mean(0)
    scale = (x - centre).square().mean().sqrt().clamp(min=1e-12)
    x = (x - centre) / scale
    if start is None:
        weight, bias = x.new_zeros(num_classes, x.shape[1]), x.new_zeros(num_classes)
    else:
        weight, bias = start.weight.clone(), start.bias.clone()
    with torch.inference_mode(False), torch.enable_grad():
        x, label, weight, bias = x.clone(), label.clone(), weight.clone(), bias.clone()  # may come from inference mode
        parameters = [weight.requires_grad_(), bias.requires_grad_()]
        optimizer = torch.optim.LBFGS(
            parameters,
            max_iter=max_steps,
            max_eval=2 * max_steps,
            history_size=20,
            tolerance_grad=tolerance,
            tolerance_change=1e-14,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(x @ weight.T + bias, label) + 0.5 * weight_decay * weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
    return LinearClassifier(weight.detach(), bias.detach(), centre, scale)


def accuracy(classifier: LinearClassifier, features: Tensor, label: Tensor) -> float:
    """Share of pictures whose highest logit is their label's."""
    return float((classifier.logits(features).argmax(1) == label).float().mean())


def split_by_class(label: Tensor, share: float, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Indices of two parts that hold every class in the same proportion, the second with about `share` of it.

    A class keeps at least one picture in the first part and gives at least one to the second if it has two or more.
    """
    generator = torch.Generator().manual_seed(seed)
    first, second = [], []
    for name in label.unique().tolist():
        members = (label == name).nonzero().flatten().cpu()
        members = members[torch.randperm(len(members), generator=generator)]
        away = min(max(round(share * len(members)), 1), len(members) - 1)
        second.append(members[:away])
        first.append(members[away:])
    return torch.cat(first).to(label.device), torch.cat(second).to(label.device)


def few_shots(label: Tensor, shots: int, *, seed: int = 0) -> Tensor:
    """Indices of `shots` pictures of every class, drawn at random; all of a class that has fewer."""
    if shots < 1:
        raise ValueError(f"a probe needs at least 1 picture of each class, got shots={shots}")
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for name in label.unique().tolist():
        members = (label == name).nonzero().flatten().cpu()
        chosen.append(members[torch.randperm(len(members), generator=generator)[:shots]])
    return torch.cat(chosen).to(label.device)


def linear_probe(
    train_features: Tensor,
    train_label: Tensor,
    test_features: Tensor,
    test_label: Tensor,
    *,
    weight_decays: Sequence[float] = WEIGHT_DECAYS,
    validation_share: float = 0.2,
    shots: int | None = None,
    seed: int = 0,
) -> ProbeResult:
    """Choose the weight decay on a held-out part of train, fit on all of train, score on test.

    Decays are tried from strong to weak, each starting from the last solution; of equal ones the strongest is taken.
    With `shots` only so many pictures of each class are used. Raises ValueError where train has fewer than two
    classes.
    """
    if shots is not None:
        chosen = few_shots(train_label, shots, seed=seed)
        train_features, train_label = train_features[chosen], train_label[chosen]
    if len(train_label) == 0 or bool((train_label == train_label[0]).all()):
        raise ValueError("a linear probe needs pictures of at least two classes to learn from")
    num_classes = int(torch.cat([train_label, test_label]).max()) + 1
    decays = sorted(set(weight_decays), reverse=True)
    part, held_out = split_by_class(train_label, validation_share, seed=seed)
    accuracies: dict[float, float] = {}
    if len(held_out) and len(decays) > 1:
        classifier = None
        for decay in decays:
            classifier = fit_logistic_regression(
                train_features[part], train_label[part], num_classes, weight_decay=decay, start=classifier
            )
            accuracies[decay] = accuracy(classifier, train_features[held_out], train_label[held_out])
        best = max(accuracies, key=accuracies.__getitem__)  # the first, i.e. strongest, of equal ones
    else:
        best = decays[len(decays) // 2]
    classifier = fit_logistic_regression(train_features, train_label, num_classes, weight_decay=best)
    return ProbeResult(
        accuracy(classifier, test_features, test_label),
        accuracy(classifier, train_features, train_label),
        best,
        accuracies,
    )
