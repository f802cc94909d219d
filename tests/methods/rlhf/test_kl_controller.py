"""The KL coefficient in both units, and the scale of scores, by hand."""

from alignlab.methods.rlhf.kl_controller import KlController
from alignlab.methods.rlhf.score_scale import ScoreScale

import pytest
import torch


def test_fixed() -> None:
    kl = KlController(0.1)
    kl.update(per_sequence=100.0, per_token=10.0, responses=64)
    assert kl.coefficient == 0.1


@pytest.mark.parametrize(("unit", "factor"), [("sequence", 1 + 0.1 * 50 / 1000), ("token", 1 - 0.2 * 50 / 1000)])
def test_adaptive_in_its_unit(unit: str, factor: float) -> None:
    kl = KlController(0.1, target=6.0, unit=unit, horizon=1000)
    kl.update(per_sequence=6.6, per_token=0.2, responses=50)  # 10 % above; far below, so clipped to -20 %
    assert kl.coefficient == pytest.approx(0.1 * factor)
    other = KlController(0.5, target=6.0)
    other.load_state_dict(kl.state_dict())
    assert other.coefficient == kl.coefficient


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"coefficient": -1.0}, "coefficient=-1.0"),
        ({"coefficient": 0.0, "target": 6.0}, "target needs coefficient above 0"),
        ({"unit": "word"}, "unit=word is none of"),
        ({"estimator": "k4"}, "estimator=k4 is none of"),
    ],
)
def test_bad_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KlController(**settings)


def test_scores_over_their_deviation_so_far() -> None:
    g = torch.Generator().manual_seed(0)
    scale, seen = ScoreScale("running", clip=1.5), torch.zeros(0)
    for _ in range(3):
        score = 5 * torch.randn(7, generator=g) + 2
        seen = torch.cat([seen, score])
        torch.testing.assert_close(scale(score), (score / seen.std()).clamp(-1.5, 1.5), rtol=1e-5, atol=1e-6)
    other = ScoreScale("running", clip=1.5)
    other.load_state_dict(scale.state_dict())
    assert torch.equal(other(score), scale(score))
    assert ScoreScale()(score) is score


@pytest.mark.parametrize("value", [0.0, 0.35, 100.1, 12345.6])
def test_scores_that_are_all_equal_stay_as_they_are(value: float) -> None:
    scale = ScoreScale("running")
    for size in (5, 1, 7):
        score = torch.full((size,), value)
        assert torch.equal(scale(score), score)
    assert scale(torch.tensor([value, value + 1.0]))[1] > value + 1.0
