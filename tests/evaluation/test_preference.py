"""Statistics of pairs by hand; calibration; the bag of words against a dense solution."""

from alignlab.evaluation.preference import (
    BagOfWords,
    accuracy_by_decile,
    all_pairs,
    calibration_error,
    correlation,
    fitted_scale,
    pair_metrics,
)

import pytest
import torch


def test_pair_metrics_by_hand():
    difference, share = torch.tensor([2.0, -1.0, 0.0, 1.0]), torch.tensor([0.9, 0.6, 0.5, 1.0])
    found = pair_metrics(difference, share, torch.tensor([2.0, 1.5, 0.1, 0.2]))
    assert found["accuracy"] == pytest.approx(2.5 / 4) and found["accuracy_above_1"] == pytest.approx(0.5)
    p = difference.sigmoid()
    assert found["brier"] == pytest.approx(float((p - share).square().mean()), rel=1e-5)
    assert found["margin"] == pytest.approx(0.5)


def test_calibration_error_by_hand():
    predicted, share = torch.tensor([0.05, 0.07, 0.55, 1.0]), torch.tensor([0.0, 0.1, 0.75, 1.0])
    assert float(calibration_error(predicted, share)) == pytest.approx((0.02 + 0.2 + 0) / 4, abs=1e-6)


def test_the_scale_undoes_overconfidence():
    torch.manual_seed(0)
    d = torch.randn(4000)
    assert fitted_scale(3 * d, d.sigmoid()) == pytest.approx(1 / 3, rel=1e-3)
    assert fitted_scale(0.2 * d, d.sigmoid()) == pytest.approx(5.0, rel=1e-3)
    share, margin = d.sigmoid(), torch.ones(4000)
    assert pair_metrics(3 * d, share, margin)["ece"] > 0.1
    assert pair_metrics(3 * d * fitted_scale(3 * d, share), share, margin)["ece"] < 0.02


def test_deciles_pairs_and_correlation():
    margin = torch.arange(20).float()
    difference = torch.where(margin < 10, -1.0, 1.0)
    assert accuracy_by_decile(difference, margin) == [0] * 5 + [1] * 5
    assert all_pairs(3)[0].tolist() == [0, 0, 1] and all_pairs(3)[1].tolist() == [1, 2, 2]
    assert correlation(margin, 3 - 2 * margin) == pytest.approx(-1) and correlation(margin, torch.ones(20)) == 0


def test_the_bag_of_words_is_ridge_regression():
    texts = ["good good film", "bad film", "good plot , bad film", "a good film", "bad plot"]
    ratings = torch.tensor([2.0, -2.0, 0.0, 1.5, -1.0])
    bag = BagOfWords(texts, ratings, ridge=0.5, iterations=200)
    rows = bag._matrix(texts).to_dense()
    dense = torch.linalg.solve(
        rows.T @ rows + 0.5 * torch.eye(rows.shape[1]), rows.T @ (ratings.double() - ratings.double().mean())
    )
    torch.testing.assert_close(bag.weight, dense.double(), rtol=1e-8, atol=1e-10)
    assert bag(["good film"]) > bag(["bad film"])
    assert bag(["unknown"]).item() == pytest.approx(0.1)
