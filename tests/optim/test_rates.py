"""Rates follow what a net starts from, an own one is kept, and one far beyond is worth a line."""

from collections.abc import Callable

from alignlab.configs.starting import started_from
from alignlab.optim.rates import RATES, warning

import pytest
from omegaconf import DictConfig

OWN = "model.net.path=x"
PRETRAINED = ("model/net=language_pretrained", OWN)
REWARD = "model.reward=x"


@pytest.mark.parametrize(
    ("words", "start", "rate"),
    [
        (("model=sft",), "nothing", 1e-3),
        (("model=sft", *PRETRAINED), "pretrained", 1e-5),
        (("model=sft", *PRETRAINED, "model/peft=lora"), "adapter", 1e-4),
        (("model=dpo", OWN), "adapter", 1e-4),
        (("model=dpo", OWN, "model/peft=none"), "pretrained", 1e-5),
        (("model=simpo", OWN), "adapter", 1e-4),
        (("model=orpo", OWN), "adapter", 1e-4),
        (("model=kto", OWN, "model/peft=none"), "pretrained", 1e-5),
        (("model=reward",), "nothing", 1e-3),
        (("model=reward", *PRETRAINED), "pretrained", 1e-5),
        (("model=reward", "model/net=reward_encoder_minilm"), "pretrained", 1e-5),
        (("model=ppo", OWN, REWARD), "adapter", 3e-4),
        (("model=grpo", OWN, REWARD, "model/peft=none"), "pretrained", 1e-5),
        (("model=clip",), "nothing", 1e-3),
        (("model=clip", "model/net=clip_pretrained"), "pretrained", 1e-5),
        (("model=clip", "model/net=clip_pretrained", "optim=muon"), "pretrained", 1e-5),
        (("model=clip", "model/net=clip_vit_b32", "optim=adamw_clip"), "nothing", 5e-4),
        (("model=albef",), "nothing", 3e-3),
        (("experiment=albef_published", "optim=adamw"), "towers", 1e-4),
        (("model=dpo", OWN, "optim.lr=0.5"), "adapter", 0.5),
        (("experiment=rlhf_movies_sft",), "nothing", 6e-3),
    ],
)
def test_the_rate_follows_the_start(
    composed: Callable[..., DictConfig], words: tuple[str, ...], start: str, rate: float
) -> None:
    cfg = composed(*words)
    assert (started_from(cfg), cfg.optim.lr) == (start, rate)


def test_far_beyond_the_table_is_a_line() -> None:
    big, tiny = 135_000_000, 2_600_000
    assert warning(1e-3, "nothing", big) is None and warning(10 * RATES["adapter"], "adapter", big) is None
    assert warning(1e-3, "pretrained", tiny) is None  # which bears the rate that it was trained with
    said = warning(1e-3, "pretrained", big)
    assert "lr=0.001 is 100 times the 1e-05" in said and "a rate of 1e-05" in said and "\n" not in said
    assert "from nothing" in warning(0.5, "nothing", tiny)
