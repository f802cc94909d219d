"""Copies that hold whole weights only while they are asked: they say what the net itself says, and are empty otherwise."""

from functools import partial
from pathlib import Path

from alignlab.methods.grpo import GrpoMethod
from alignlab.methods.language_models.export import build_net, export_model
from alignlab.methods.rlhf.reward import AdapterReward
from alignlab.models.language.loading import pretrained
from alignlab.models.language.lora import add_lora
from alignlab.models.language.reward import RewardModel
from tiny_policy import VOCABULARY, Prompts, count_good, make_tokenizer, save_model

import pytest
import torch

LORA = partial(add_lora, rank=4, alpha=8)


def reward_adapter(base: str, folder: Path) -> str:
    """A run directory of a reward model that is an adapter on the base."""
    net = build_net(partial(pretrained, path=base), LORA, VOCABULARY)
    for name, parameter in net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    export_model(net, folder / "export")
    RewardModel(net).save_head(folder / "export")
    make_tokenizer().save_pretrained(folder / "export")
    return str(folder)


@pytest.mark.parametrize("peft", [None, LORA], ids=["whole", "lora"])
def test_a_policy_that_is_cut_up_says_the_same(peft: object, tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = save_model(tmp_path / "base")
    folder = reward_adapter(base, tmp_path / "reward") if peft else None
    said = []
    for cut_up in (False, True):
        reward = AdapterReward(folder) if peft else count_good
        settings = {"peft": peft, "vocabulary": VOCABULARY, "group_size": 2, "response_length": 6}
        torch.manual_seed(1)
        method = GrpoMethod(partial(pretrained, path=base), reward, **settings)
        if cut_up:
            method.cut_up()
        with torch.no_grad():  # as after a step: the copies hold what the net has now, the reference what it had
            for name, parameter in method.net.model.named_parameters():
                if parameter.requires_grad:
                    parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
                    assert method.whole is None or name in dict(method.speaker.model.named_parameters())
        batch, found = Prompts(4).batch(0), []
        for _ in range(2):  # the second time they are filled again
            with method.speaking(answers=True):
                method.prepare(make_tokenizer())
                responses = method.respond(batch, 0)
                score = method.scores(method.reward, responses).total
                answers = method.answers(batch)
                t = method.assess(responses)
            found.append((responses.responses, score.tolist(), t.logprob.tolist(), t.reference.tolist(), answers))
        assert found[0] == found[1]
        said.append(found[0])
        if cut_up:
            left = [p for n, p in method.speaker.model.named_parameters() if ".reward." not in n]
            frozen = [] if method.net.frozen_reference is None else list(method.net.frozen_reference.parameters())
            assert all(p.is_meta for p in (*left, *frozen)), "nothing whole is kept"
            assert method.whole.num_bytes == sum(4 * p.numel() for p in left) + sum(4 * p.numel() for p in frozen)
    assert said[0] == said[1] and said[0][2] != said[0][3]
