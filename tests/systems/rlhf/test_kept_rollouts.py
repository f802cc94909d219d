"""Rollouts that were written are learnt from again, without a sampler and without a reward."""

import json
from functools import partial
from pathlib import Path

from alignlab.methods.grpo import GrpoMethod
from alignlab.methods.ppo import PpoMethod
from alignlab.models.language.loading import pretrained
from alignlab.systems.choosing import system_of
from alignlab.systems.rlhf.kept_rollouts import KeptRollouts
from tiny_policy import VOCABULARY, PlainBackend, Prompts, constant_rate, count_good, save_model, trainer

import pytest
import torch


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_model(tmp_path_factory.mktemp("policy"))


def never(prompts: list[str], responses: list[str]) -> list[float]:
    raise AssertionError("a replay asks no reward")


class Silent(PlainBackend):
    def generate(self, *args, **kwargs):
        raise AssertionError("a replay samples nothing")


@pytest.mark.parametrize(
    "settings", [{}, {"group_size": 4}, {"group_size": 4, "redraws": 1}], ids=["ppo", "grpo", "dapo"]
)
def test_a_replay_ends_in_the_same_weights(path: str, tmp_path: Path, settings: dict) -> None:
    method = GrpoMethod if settings else PpoMethod

    def weights(kept: KeptRollouts, folder: Path, data: Prompts, **own) -> dict[str, torch.Tensor]:
        made = partial(method, partial(pretrained, path=path), response_length=8, **settings, **own)
        system = system_of(made, vocabulary=VOCABULARY, optim=constant_rate(1e-2))
        trainer(folder, 3, callbacks=[kept]).fit(system, datamodule=data)
        return {name: p.detach().clone() for name, p in system.named_parameters()}

    if settings.get("redraws"):
        Prompts.further_prompts = lambda self, number, turn, count: Prompts(count).batch(9000 + number)
    first = weights(KeptRollouts(), tmp_path / "a", Prompts(4), reward=count_good)
    again = partial(weights, reward=never, backend=Silent)
    second = again(KeptRollouts(str(tmp_path / "a")), tmp_path / "b", Prompts(4))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not (tmp_path / "b" / "rollouts").exists()
    files = sorted(file.name for file in (tmp_path / "a" / "rollouts").iterdir())
    assert files == [f"0000000{update}-0.jsonl" for update in range(3)]
    row = json.loads((tmp_path / "a" / "rollouts" / files[0]).read_text().splitlines()[1])
    assert len(row["response"]) == len(row["logprobs"])
    if not settings.get("redraws"):
        with pytest.raises(ValueError, match=r"0{8}-0.jsonl answers other prompts than this run's"):
            again(KeptRollouts(str(tmp_path / "a")), tmp_path / "c", Prompts(2))
    (tmp_path / "a" / "rollouts" / files[1]).write_text("{}")
    with pytest.raises(ValueError, match=r"00000001-0.jsonl is damaged"):
        again(KeptRollouts(str(tmp_path / "a")), tmp_path / "d", Prompts(4))
    (tmp_path / "a" / "rollouts" / files[1]).unlink()
    with pytest.raises(ValueError, match=r"00000001-0.jsonl isn't there; 2 updates of rank 0 are"):
        again(KeptRollouts(str(tmp_path / "a")), tmp_path / "e", Prompts(4))


def test_a_folder_without_rollouts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no rollouts/"):
        KeptRollouts(str(tmp_path))
