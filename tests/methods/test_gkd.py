"""On-policy distillation: a student comes near its teacher on its own responses."""

from functools import partial
from pathlib import Path

from alignlab.methods.gkd import Distillation, GkdMethod
from alignlab.methods.rlhf.update import Update
from alignlab.models.language.loading import pretrained
from alignlab.models.language.lora import add_lora
from alignlab.systems.choosing import system_of
from alignlab.systems.rlhf.on_policy import OnPolicySystem
from recorder import Recorder
from tiny_policy import (
    VOCABULARY,
    Prompts,
    constant_rate,
    count_good,
    make_model,
    make_tokenizer,
    save_model,
    sgd,
    trainer,
)

import pytest
import torch
from torch.testing import assert_close


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A student and a wider teacher with more rows than words."""
    folder = tmp_path_factory.mktemp("models")
    teacher = save_model(folder / "teacher", seed=1, scale=4.0, hidden_size=24, vocab_size=len(make_tokenizer()) + 5)
    return save_model(folder / "student", scale=4.0), teacher


def system(paths: tuple[str, str], **settings) -> OnPolicySystem:
    student, teacher = (partial(pretrained, path=path) for path in paths)
    method = partial(GkdMethod, student, teacher, **({"response_length": 8} | settings))
    return system_of(method, vocabulary=VOCABULARY, optim=constant_rate(2e-2))


def fit(found: OnPolicySystem, folder: Path, steps: int, **settings) -> list[dict[str, float]]:
    recorder = Recorder()
    trainer(folder, steps, callbacks=[recorder], **settings).fit(found, datamodule=Prompts(16))
    return recorder.rows


@pytest.mark.parametrize(("beta", "peft"), [(0.0, None), (0.5, add_lora), (1.0, None)])
def test_the_student_comes_near(paths: tuple[str, str], tmp_path: Path, beta: float, peft) -> None:
    found = system(paths, objective=Distillation(beta=beta), peft=peft)
    rows = fit(found, tmp_path, 16)
    divergences = [row["ppo/divergence"] for row in rows]
    assert sum(divergences[-3:]) < 0.8 * sum(divergences[:3]), divergences
    assert rows[0]["objective/kl"] == pytest.approx(0.0, abs=1e-5) and "objective/score" not in rows[0]
    assert not any("teacher" in name for name in found.state_dict())


def test_the_divergence_is_that_of_plain_logits(paths: tuple[str, str], tmp_path: Path) -> None:
    """Over each response token, whatever the micro-batches; its gradient too."""
    weights = []
    for size in (3, 16):
        found = system(paths, objective=Distillation(beta=1.0), update=Update(epochs=1, micro_batch_size=size))
        found.optim = lambda module, total_steps: sgd(module)
        rows = fit(found, tmp_path, 1)
        weights.append([p.detach() for p in found.parameters()])
    assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-6)
    start = system(paths)
    fit(start, tmp_path, 0)
    start.configure_model()
    method = start.method
    method.prepare(make_tokenizer())
    responses = method.respond(Prompts(16).batch(0), 0)
    total, tokens, likely = 0.0, 0, []
    for prompt, response in zip(responses.prompts, responses.responses, strict=True):
        ids, at = torch.tensor([prompt + response]), slice(len(prompt) - 1, -1)
        with torch.no_grad():
            student = method.net.model(ids).logits[0, at].log_softmax(1)
            teacher = method.teacher(ids).logits[0, at, : VOCABULARY.size].log_softmax(1)
            whole = method.teacher(ids).logits[0, at].log_softmax(1)
        total += (student.exp() * (student - teacher)).sum().item()
        tokens += len(response)
        likely.append(whole.gather(1, torch.tensor(response)[:, None]).mean().item())
    assert rows[0]["ppo/divergence"] == pytest.approx(total / tokens, rel=1e-4)
    assert_close(method.score(method.reward, responses), torch.tensor(likely), rtol=1e-4, atol=1e-5)


def test_a_reward_measures_and_teaches_nothing(paths: tuple[str, str], tmp_path: Path) -> None:
    found = {}
    for name, reward in (("none", None), ("good", count_good)):
        one = system(paths, reward=reward)
        found[name] = fit(one, tmp_path, 2), [p.detach() for p in one.parameters()]
    assert "objective/score" in found["good"][0][0]
    assert_close(found["good"][1], found["none"][1], rtol=0, atol=0)


def test_another_vocabulary_is_refused(paths: tuple[str, str], tmp_path: Path) -> None:
    make_model(vocab_size=30).save_pretrained(tmp_path / "other")
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["film-maker"])
    tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"teacher: .*other has another vocabulary than the student"):
        fit(system((paths[0], str(tmp_path / "other"))), tmp_path, 1)


@pytest.mark.parametrize("beta", [-0.1, 1.5])
def test_beta_lies_within_0_and_1(beta: float) -> None:
    with pytest.raises(ValueError, match=r"beta=.* must lie in 0\.\.1"):
        Distillation(beta=beta)


def test_there_is_no_ratio_to_stop_by(paths: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=r"update\.target_kl"):
        system(paths, update=Update(epochs=1, target_kl=0.1)).configure_model()
