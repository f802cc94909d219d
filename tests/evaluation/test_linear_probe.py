"""Logistic regression on features: optimal, separates what can be separated, few shots."""

from alignlab.evaluation.linear_probe import few_shots, fit_logistic_regression, linear_probe, split_by_class

import pytest
import torch


def clouds(num_classes=5, each=20, spread=0.3, width=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(num_classes, width, generator=torch.Generator().manual_seed(99))
    label = torch.arange(num_classes).repeat(each)
    return centres[label] + spread * torch.randn(len(label), width, generator=generator), label


def test_two_classes_equal_newtons_solution():
    features, label = clouds(num_classes=2, each=15, spread=2.0, width=3)
    decay = 0.05
    found = fit_logistic_regression(features, label, 2, weight_decay=decay)
    # The softmax of two classes with a penalty on both weights is a sigmoid of their difference with half the penalty.
    x = (features.double() - found.centre) / found.scale
    x = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], 1)
    y, penalty = label.double(), decay / 2 * torch.diag(torch.tensor([1.0, 1, 1, 0], dtype=torch.float64))
    w = torch.zeros(4, dtype=torch.float64)
    for _ in range(30):
        p = (x @ w).sigmoid()
        hessian = x.T @ (x * (p * (1 - p))[:, None]) / len(x) + penalty
        w -= torch.linalg.solve(hessian, x.T @ (p - y) / len(x) + penalty @ w)
    difference = torch.cat([found.weight[1] - found.weight[0], (found.bias[1] - found.bias[0])[None]])
    torch.testing.assert_close(difference, w, atol=1e-6, rtol=0)


def test_the_start_and_the_scale_of_features_do_not_matter():
    features, label = clouds(spread=1.5)
    plain = fit_logistic_regression(features, label, 5, weight_decay=1e-3)
    warm = fit_logistic_regression(
        features, label, 5, weight_decay=1e-3, start=fit_logistic_regression(features, label, 5, weight_decay=1.0)
    )
    scaled = fit_logistic_regression(1000 * features + 7, label, 5, weight_decay=1e-3)
    expected = plain.logits(features).softmax(-1)
    torch.testing.assert_close(warm.logits(features).softmax(-1), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled.logits(1000 * features + 7).softmax(-1), expected, atol=1e-5, rtol=0)


def test_separable_features_are_separated_and_noise_is_not():
    (train, label), (test, test_label) = clouds(), clouds(seed=1)
    result = linear_probe(train, label, test, test_label)
    assert result.accuracy == result.train_accuracy == 1.0
    noise = torch.randn(100, 16, generator=torch.Generator().manual_seed(2))
    result = linear_probe(noise, label, noise.flip(0), label)
    assert result.accuracy < 0.5 and set(result.validation_accuracy) == {10.0**e for e in range(-5, 2)}


def test_nuisance_features_call_for_a_stronger_weight_decay():
    (train, label), (test, test_label) = clouds(each=6, spread=1.2), clouds(each=40, spread=1.2, seed=1)
    generator = torch.Generator().manual_seed(3)
    train = torch.cat([train, 2 * torch.randn(len(train), 60, generator=generator)], 1)
    test = torch.cat([test, 2 * torch.randn(len(test), 60, generator=generator)], 1)
    chosen = linear_probe(train, label, test, test_label)
    weak = linear_probe(train, label, test, test_label, weight_decays=[1e-5])
    assert chosen.weight_decay > 1e-5 and chosen.accuracy >= weak.accuracy


def test_split_keeps_proportions_and_single_members():
    label = torch.tensor([0] * 10 + [1] * 5 + [2])
    first, second = split_by_class(label, 0.2)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(16))
    assert label[second].bincount(minlength=3).tolist() == [2, 1, 0]


def test_few_shots():
    label = torch.tensor([0, 1] * 10 + [2])
    assert label[few_shots(label, 3)].bincount().tolist() == [3, 3, 1]
    assert not torch.equal(few_shots(label, 3), few_shots(label, 3, seed=1))
    train, labels = clouds()
    assert linear_probe(train, labels, *clouds(seed=1), shots=1).accuracy > 0.9
    with pytest.raises(ValueError, match="shots=0"):
        few_shots(label, 0)
    with pytest.raises(ValueError, match="two classes"):
        linear_probe(train, torch.zeros_like(labels), train, labels)


def test_works_inside_inference_mode():
    with torch.inference_mode():
        train, label = clouds()
        assert linear_probe(train, label, train, label).accuracy == 1.0
