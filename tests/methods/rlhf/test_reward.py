"""Rewards from a reward model's run directory, from an adapter on the policy's base, and their mistakes."""

from functools import partial
from pathlib import Path

from alignlab.methods.language_models.export import build_net, export_model
from alignlab.methods.rlhf.reward import AdapterReward, ModelReward, Scored, as_reward
from alignlab.models.language.actor_critic import ActorCritic
from alignlab.models.language.loading import pretrained
from alignlab.models.language.lora import add_lora
from alignlab.models.language.reward import RewardModel
from tiny_policy import END, VOCABULARY, make_tokenizer, save_model

import pytest
import torch
from torch.testing import assert_close

LORA = partial(add_lora, rank=4, alpha=8)
ROWS = [[3, 5, END], [4, 6, 7, 8, END], [9, 10, 11]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """A base, a whole reward model, and a reward adapter on the base."""
    folder = tmp_path_factory.mktemp("models")
    base = save_model(folder / "base")
    for name, peft in (("whole", None), ("adapter", LORA)):
        torch.manual_seed(3)
        trunk = build_net(partial(pretrained, path=base), peft, VOCABULARY)
        for key, parameter in trunk.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.3)
        model = RewardModel(trunk)
        model.mean.fill_(0.5)
        model.std.fill_(2.0)
        export_model(trunk, folder / name / "export")
        model.save_head(folder / name / "export")
        make_tokenizer().save_pretrained(folder / name / "export")
        torch.save(
            [model(torch.tensor([row]), torch.ones(1, len(row), dtype=torch.bool)).item() for row in ROWS],
            folder / f"{name}.pt",
        )
    return base, str(folder / "whole"), str(folder / "adapter")


def scored() -> Scored:
    texts = make_tokenizer().batch_decode(ROWS, skip_special_tokens=True)
    return Scored([""] * 3, texts, ROWS, [True, True, False])


def policy(base: str, peft: object = None) -> ActorCritic:
    return ActorCritic(build_net(partial(pretrained, path=base), peft, VOCABULARY))


@pytest.mark.parametrize("kind", [1, 2], ids=["whole", "adapter"])
def test_a_run_directory(folders: tuple[str, str, str], kind: int) -> None:
    reward = as_reward(folders[kind])
    assert isinstance(reward, ModelReward)
    reward.bind(policy(folders[0]), make_tokenizer())
    raw = torch.load(f"{folders[kind]}.pt")
    assert_close(reward(scored()), (torch.tensor(raw) - 0.5) / 2, rtol=1e-5, atol=1e-6)
    reward.normalised, reward.micro_batch_size = False, 1
    assert_close(reward(scored()), torch.tensor(raw), rtol=1e-5, atol=1e-6)


def test_another_vocabulary_gets_the_text(folders: tuple[str, str, str]) -> None:
    reward = ModelReward(folders[1], normalised=False)
    other = make_tokenizer()
    other.add_tokens(["unheard"])
    reward.bind(policy(folders[0]), other)
    assert reward.tokenizer is not None
    with_start = [
        [2, *row] for row in ROWS
    ]  # rendered as at the reward model's own training: start, text, end where it ended
    texts = scored()
    found = reward(texts._replace(sequences=[[0]] * 3))
    mine = reward._score(*_padded(with_start))
    assert_close(found, mine, rtol=1e-5, atol=1e-6)


def _padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    return ids, torch.arange(width) < torch.tensor([[len(row)] for row in rows])


def test_an_adapter_on_the_policys_base(folders: tuple[str, str, str]) -> None:
    net = policy(folders[0], LORA)
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    states = net.hidden(torch.tensor([ROWS[1]]))
    reward = AdapterReward(folders[2])
    for _ in range(2):  # a second call changes nothing
        reward.bind(net, make_tokenizer())
    raw = torch.tensor(torch.load(f"{folders[2]}.pt"))
    assert_close(reward(scored()), (raw - 0.5) / 2, rtol=1e-5, atol=1e-6)
    assert {name for name, p in net.named_parameters() if p.requires_grad} == trained
    assert torch.equal(net.hidden(torch.tensor([ROWS[1]])), states), "the policy's adapter is the active one again"


def test_mistakes(folders: tuple[str, str, str], tmp_path: Path) -> None:
    base, whole, adapter = folders
    with pytest.raises(ValueError, match="needs a policy with adapters"):
        AdapterReward(adapter).bind(policy(base), make_tokenizer())
    with pytest.raises(ValueError, match="holds a whole model, no adapter"):
        AdapterReward(whole).bind(policy(base, LORA), make_tokenizer())
    other = save_model(tmp_path / "other", seed=1)
    with pytest.raises(ValueError, match="belongs to"):
        AdapterReward(adapter).bind(policy(other, LORA), make_tokenizer())
    with pytest.raises(ValueError, match="holds no reward model"):
        as_reward(str(tmp_path / "nothing")).bind(policy(base), make_tokenizer())
