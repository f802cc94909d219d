"""PPO and GRPO in other precisions than float32: they run and start at a ratio of 1, or are refused in a line."""

from functools import partial
from pathlib import Path

from alignlab.inference.backends.compiled import CompiledBackend
from alignlab.methods.grpo import GrpoMethod
from alignlab.methods.ppo import PpoMethod
from alignlab.methods.rlhf.update import Update
from alignlab.models.language.actor_critic import ActorCritic
from alignlab.models.language.loading import pretrained
from alignlab.models.language.lora import add_lora
from alignlab.systems.choosing import system_of
from alignlab.systems.rlhf.on_policy import OnPolicySystem
from recorder import Recorder
from tiny_policy import VOCABULARY, Prompts, constant_rate, count_good, make_model, save_model, trainer

import pytest
import torch


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_model(tmp_path_factory.mktemp("policy"))


def system(kind: type, path: str, **settings) -> OnPolicySystem:
    group = {"group_size": 4} if kind is GrpoMethod else {}
    net = partial(pretrained, path=path)
    update = Update(epochs=2, num_minibatches=2, micro_batch_size=3)
    settings = {"response_length": 8, "update": update, **group} | settings
    return system_of(partial(kind, net, count_good, **settings), vocabulary=VOCABULARY, optim=constant_rate(1e-2))


class Watched(CompiledBackend):
    """Notes under which precision it is asked."""

    autocast, dtypes = [], set()

    def generate(self, *args, **kwargs):
        self.autocast.append(torch.is_autocast_enabled("cpu"))
        self.dtypes.add(torch.get_default_dtype())
        return super().generate(*args, **kwargs)


@pytest.mark.parametrize("peft", [None, partial(add_lora, rank=4, alpha=8)], ids=["full", "lora"])
@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
@pytest.mark.parametrize("kind", [PpoMethod, GrpoMethod])
def test_two_updates(path: str, tmp_path: Path, kind: type, precision: str, peft: object) -> None:
    recorder, Watched.autocast, Watched.dtypes = Recorder(), [], set()
    found = system(kind, path, backend=Watched, peft=peft)
    found.configure_model()
    before = [p.detach().clone() for p in found.net.parameters() if p.requires_grad]
    run = trainer(tmp_path, 2, callbacks=[recorder], precision=precision, limit_val_batches=1, val_check_interval=1)
    run.fit(found, datamodule=Prompts(4))
    assert len(recorder.rows) == 2 and not any(Watched.autocast) and Watched.dtypes == {torch.float32}
    for row in recorder.rows:
        assert all(value == value and abs(value) < float("inf") for value in row.values()), row
    exact = precision == "64-true"
    assert recorder.rows[0]["ppo/first_ratio_error"] < (1e-4 if exact else 0.05)
    assert recorder.rows[0]["ppo/sampler_error"] < (1e-4 if exact else 0.05)
    assert recorder.rows[0]["objective/kl"] == pytest.approx(0, abs=1e-3), "the policy starts as the reference"
    wanted = {"bf16-mixed": torch.float32, "bf16-true": torch.bfloat16, "64-true": torch.float64}[precision]
    assert {p.dtype for p in found.net.parameters()} == {wanted}
    after = [p for p in found.net.parameters() if p.requires_grad]
    assert any(not torch.equal(a.to(b.dtype), b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("kind", [PpoMethod, GrpoMethod])
def test_float16_weights_are_refused_in_a_line(path: str, tmp_path: Path, kind: type) -> None:
    with pytest.raises(ValueError, match=r"trainer\.precision=16-true.*bf16-true") as caught:
        trainer(tmp_path, 1, precision="16-true").fit(system(kind, path), datamodule=Prompts(4))
    assert "\n" not in str(caught.value)


def test_a_conversion_leaves_rotary_frequencies_exact() -> None:
    found = ActorCritic(make_model(0, hidden_size=64, num_attention_heads=1), critic="separate")
    wanted = make_model(0, hidden_size=64, num_attention_heads=1).model.rotary_emb.inv_freq
    found.to(torch.bfloat16)
    found.move_reference(torch.device("cpu"))
    with found.as_reference() as reference:
        for model in (found.model.model, found.critic, reference.model):
            assert torch.equal(model.rotary_emb.inv_freq, wanted)
            assert model.embed_tokens.weight.dtype == torch.bfloat16
