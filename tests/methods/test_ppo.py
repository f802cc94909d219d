"""PPO as a whole: it learns, the split into micro-batches changes nothing, resumed equals uninterrupted, every parameter learns."""

import copy
import dataclasses
from functools import partial
from inspect import signature
from pathlib import Path

from alignlab.methods.ppo import PpoMethod
from alignlab.methods.rlhf.kl_controller import KlController
from alignlab.methods.rlhf.objective import Objective, Statistics
from alignlab.methods.rlhf.update import Update, clip
from alignlab.models.language.loading import pretrained
from alignlab.models.language.lora import add_lora
from alignlab.systems.choosing import system_of
from alignlab.systems.rlhf.critic_group import with_critic_group
from alignlab.systems.rlhf.on_policy import OnPolicySystem
from recorder import Recorder
from tiny_policy import VOCABULARY, PlainBackend, Prompts, constant_rate, count_good, save_model, sgd, trainer

import pytest
import torch
from torch.testing import assert_close


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_model(tmp_path_factory.mktemp("policy"))


LORA = partial(add_lora, rank=4, alpha=8)


def system(path: str, lr: float = 1e-3, **settings) -> OnPolicySystem:
    settings = {"response_length": 8, "micro_batch_size": 4, "backend": PlainBackend} | settings
    update = Update(**{key: settings.pop(key) for key in signature(Update).parameters if key in settings})
    reward, net = settings.pop("reward", count_good), partial(pretrained, path=path)
    method = partial(PpoMethod, net, reward, update=update, **settings)
    return system_of(method, vocabulary=VOCABULARY, optim=constant_rate(lr))


def fit(found: OnPolicySystem, folder: Path, steps: int, **settings) -> list[dict[str, float]]:
    recorder = Recorder()
    data = Prompts(settings.pop("batch_size", 8))
    checkpoint = settings.pop("ckpt_path", None)
    trainer(folder, steps, callbacks=[recorder], **settings).fit(found, datamodule=data, ckpt_path=checkpoint)
    return recorder.rows


def test_it_learns_and_its_numbers_make_sense(path: str, tmp_path: Path) -> None:
    found = system(path, lr=1e-2, kl=KlController(0.01), num_minibatches=2, missing_end_penalty=None)
    rows = fit(found, tmp_path, 14, batch_size=16)
    assert sum(row["objective/score"] for row in rows[-3:]) / 3 > rows[0]["objective/score"] + 0.3
    assert rows[0]["objective/kl"] == pytest.approx(0.0, abs=1e-5), "the policy starts as the reference"
    assert rows[-1]["objective/kl"] > 0.1
    assert rows[0]["ppo/first_ratio_error"] < 1e-4
    for row in rows:
        assert 0 <= row["ppo/clip_fraction"] <= 1 and row["ppo/approx_kl"] >= 0 and row["objective/entropy"] > 0
        assert row["ppo/minibatches"] == 8


@pytest.mark.parametrize(
    "net",
    [
        {},
        {"critic": "separate"},
        {"peft": LORA},
        {"peft": LORA, "critic": "separate"},
    ],
    ids=["full", "full, separate", "lora", "lora, separate"],
)
def test_every_trainable_parameter_learns_and_no_other(path: str, tmp_path: Path, net: dict) -> None:
    found = system(path, **net)
    found.configure_model()
    with torch.no_grad():  # LoRA's second factor is 0 at first: nothing reaches the first one
        for name, parameter in found.named_parameters():
            if "lora_B" in name or "value_head" in name:
                parameter.normal_(std=0.1)
    before = {name: p.detach().clone() for name, p in found.named_parameters()}
    frozen = {name for name, p in found.named_parameters() if not p.requires_grad}
    assert bool(frozen) == ("peft" in net)
    fit(found, tmp_path, 1)
    for name, p in found.named_parameters():
        assert torch.equal(p, before[name]) == (name in frozen), name


def test_the_gradient_does_not_depend_on_micro_batches(path: str, tmp_path: Path) -> None:
    weights = []
    for size in (1, 3, 8):
        torch.manual_seed(0)
        found = system(path, micro_batch_size=size, num_minibatches=1, epochs=1, lr=0.1)
        found.optim = lambda module, total_steps: sgd(module)
        fit(found, tmp_path, 1)
        weights.append({name: p.detach() for name, p in found.named_parameters()})
    for name, value in weights[0].items():
        assert_close(weights[1][name], value, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
        assert_close(weights[2][name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("peft", [False, True])
def test_resumed_equals_uninterrupted(path: str, tmp_path: Path, peft: bool) -> None:
    def make() -> OnPolicySystem:
        torch.manual_seed(0)
        return system(
            path,
            peft=LORA if peft else None,
            kl=KlController(0.1, target=0.01, horizon=100),
            score_scale="running",
            num_minibatches=2,
            epochs=2,
        )

    whole = make()
    fit(whole, tmp_path, 4)
    first = make()
    settings = {"enable_checkpointing": True, "callbacks": []}
    one = trainer(tmp_path, 2, **settings)
    one.fit(first, datamodule=ResumablePrompts(8))
    one.save_checkpoint(tmp_path / "two.ckpt")
    second = make()
    other = trainer(tmp_path, 4)
    other.fit(second, datamodule=ResumablePrompts(8), ckpt_path=tmp_path / "two.ckpt")
    assert other.global_step == 4
    assert second.kl.coefficient == whole.kl.coefficient != 0.1
    assert second.scale.state_dict() == whole.scale.state_dict()
    for name, p in whole.named_parameters():
        assert torch.equal(dict(second.named_parameters())[name], p), name
    states = (s.optimizers(use_pl_optimizer=False).state_dict()["state"] for s in (whole, second))
    for mine, other_state in zip(*(s.values() for s in states), strict=True):
        assert all(torch.equal(mine[key], other_state[key]) for key in mine)


class ResumablePrompts(Prompts):
    """Goes on with the batch after the last one."""

    def train_dataloader(self):
        loader = super().train_dataloader()
        done = self.trainer.global_step
        return type(loader)(list(loader.dataset)[done:], batch_size=None)


def test_validation_changes_nothing(path: str, tmp_path: Path) -> None:
    runs = []
    for limit in (0, 2):
        torch.manual_seed(0)
        found = system(path)
        one = trainer(tmp_path, 2, limit_val_batches=limit, val_check_interval=1, num_sanity_val_steps=limit)
        one.fit(found, datamodule=Prompts(8))
        runs.append(found.state_dict())
        if limit:
            metrics = one.callback_metrics
            assert {"val/score", "val/kl", "val/distinct_2", "val/ended"} <= set(metrics)
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_validation_answers_the_same_each_time(path: str, tmp_path: Path) -> None:
    found = system(path)
    one = trainer(tmp_path, 1, limit_val_batches=2)
    first = one.validate(found, datamodule=Prompts(8), verbose=False)
    torch.rand(3)
    assert one.validate(found, datamodule=Prompts(8), verbose=False) == first


def test_a_loop_without_a_trainer_takes_the_same_step(path: str, tmp_path: Path) -> None:
    settings = {"update": Update(epochs=2, num_minibatches=2, micro_batch_size=3), "response_length": 8}
    method = PpoMethod(partial(pretrained, path=path), count_good, vocabulary=VOCABULARY, **settings)
    prompts, optim = Prompts(8), constant_rate(1e-3)
    method.prepare(prompts.tokenizer)
    optimizer = optim(method.net, total_steps=1)["optimizer"]
    responses, t = method.roll_out(prompts.batch(0), 0)
    experience, metrics = method.experience(t, method.score(method.reward, responses))
    for parts in method.minibatches(t, experience, 0):
        statistics = Statistics()
        for part in parts:
            method.objective(method.net, part, statistics).backward()
        clip(list(method.net.parameters()), method.update.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
    method.learn_from({name: float(v) for name, v in metrics.items()} | {"objective/response_length": 1.0}, 8)
    trained = system_of(
        partial(PpoMethod, partial(pretrained, path=path), count_good, **settings), vocabulary=VOCABULARY, optim=optim
    )
    fit(trained, tmp_path, 1)
    for name, p in trained.net.named_parameters():
        assert torch.equal(p, dict(method.net.named_parameters())[name]), name


def test_every_update_and_epoch_has_an_order_of_its_own() -> None:
    update = Update(epochs=2, num_minibatches=2)
    orders = [update.order(8, seed, number) for seed, number in ((0, 0), (0, 1), (1, 0))]
    epochs = [(*order[i], *order[i + 1]) for order in orders for i in (0, 2)]
    assert len(set(epochs)) == 6 and all(sorted(epoch) == list(range(8)) for epoch in epochs)
    assert update.order(8, 0, 1) == orders[1]


def test_the_critics_group_starts_at_its_own_rate() -> None:
    module = torch.nn.Linear(2, 2)
    built = constant_rate(1e-3)(module, total_steps=2)
    with_critic_group(built, [module.bias], 5.0)
    rates = {id(p): group["lr"] for group in built["optimizer"].param_groups for p in group["params"]}
    assert rates == {id(module.weight): pytest.approx(1e-3), id(module.bias): pytest.approx(5e-3)}
    with pytest.raises(ValueError, match="critic_lr_ratio=0"):
        with_critic_group(built, [module.bias], 0)


def test_gradients_are_scaled_down_and_never_up() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    for length, wanted in ((5.0, 1.0), (0.5, 0.5)):
        parameter.grad = torch.tensor([0.6, 0.8]) * length
        assert clip([parameter], 1.0) == pytest.approx(length)
        assert parameter.grad.norm() == pytest.approx(wanted, rel=1e-5)


def test_target_kl_stops_an_update(path: str, tmp_path: Path) -> None:
    rows = fit(system(path, lr=0.05, epochs=8, target_kl=1e-4), tmp_path, 1)
    assert 1 <= rows[0]["ppo/minibatches"] < 8


def test_critic_warmup_leaves_the_policy_alone(path: str, tmp_path: Path) -> None:
    found = system(path, critic="separate", critic_warmup=1)
    found.configure_model()
    before = {name: p.detach().clone() for name, p in found.net.named_parameters()}
    fit(found, tmp_path, 1)
    for name, p in found.net.named_parameters():
        assert torch.equal(p, before[name]) == name.startswith("model."), name


def test_the_critic_has_its_own_rate(path: str, tmp_path: Path) -> None:
    found = system(path, critic_lr_ratio=5.0)
    fit(found, tmp_path, 1)
    groups = found.optimizers(use_pl_optimizer=False).param_groups
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert rate[id(found.net.value_head.weight)] == pytest.approx(5e-3)
    assert rate[id(found.net.head.weight)] == pytest.approx(1e-3)


def test_asymmetric_and_dual_clips_reach_the_loss(path: str, tmp_path: Path) -> None:
    runs = []
    for objective in (Objective(), Objective(clip_high=5.0, dual_clip=1.01)):
        torch.manual_seed(0)
        rows = fit(system(path, lr=0.05, objective=objective), tmp_path, 1)
        runs.append(rows[0]["ppo/clip_fraction"])
    assert runs[0] > runs[1]


def bad(prompts: list[str], responses: list[str]) -> list[float]:
    raise KeyError("no such word")


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (bad, r"^reward=bad raised KeyError: 'no such word'"),
        (lambda p, r: [1.0], r"returned 1 scores for 8 responses"),
        (lambda p, r: [[1.0]] * 8, r"returned list \[1.0\] for response 0 \("),
        (lambda p, r: ["good"] * 8, r"returned str 'good' for response 0 \(.*; scores must be finite numbers"),
        (lambda p, r: [1.0] * 7 + [float("nan")], r"returned nan for response 7 \(.*; scores must be finite"),
        ("no_such_module.function", r"reward=no_such_module.function can't be imported"),
        ("json.__doc__", r"reward=json.__doc__ is str, not a function"),
        ("word", r"neither a run directory nor package.module.function"),
        (3, r"reward is 3"),
    ],
)
def test_a_bad_reward_is_one_line(path: str, tmp_path: Path, reward: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        fit(system(path, reward=reward), tmp_path, 1)
    assert "\n" not in str(caught.value)


class StaleBackend(PlainBackend):
    """Goes on with the weights of the start."""

    def load(self, source):
        return super().load(dataclasses.replace(source, model=copy.deepcopy(source.model)))


def test_a_backend_that_samples_from_another_model_is_found_out(path: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="StaleBackend samples from another model than the policy"):
        fit(system(path, lr=0.05, backend=StaleBackend), tmp_path, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_minibatches": 3}, "num_minibatches=3 doesn't divide the 8 responses"),
        ({"temperature": 0.0}, "temperature=0.0 must be positive"),
        ({"epochs": 0}, "epochs=0 must be at least 1"),
        (
            {"response_length": 63},
            r"a prompt of \d tokens and response_length=63 exceed the model's context of 64",
        ),
        ({"critic": "none"}, "critic=none: PPO needs a critic"),
    ],
)
def test_bad_settings(path: str, tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(system(path, **settings), tmp_path, 1)
