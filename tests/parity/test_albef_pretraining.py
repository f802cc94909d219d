"""Our ALBEF pre-training equals an independent plain one: losses, every gradient, and the state after several steps.

Weights travel through the published checkpoint layout; masked tokens and negatives are fixed; no dropout; a queue of 20 that batches
of 6 do not divide, so that writing wraps around. Our side runs in float32 in a real `Trainer.fit`, the other in float64.
"""

from typing import NamedTuple

from albef_pair import TINY, fixed_chances, load, make_reference, make_system, random_batch
from albef_reference import AlbefReference, Losses, adamw
from alignlab.models.albef_checkpoint import AlbefState, to_official
from alignlab.systems.method_system import MethodSystem

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn

TOLERANCE = 2e-6
LR = 1e-5  # where the published schedule begins
WEIGHT_DECAY = 20.0  # a thousand times the published one, so that decaying the wrong tensor shows in five steps
BATCH, TOKENS, STEPS = 6, 9, 5


class Step(NamedTuple):
    """What is compared after each step."""

    losses: dict[str, float]
    gradients: dict[str, Tensor]  # by published name
    state: dict[str, Tensor]  # by published name


class Recorder(pl.Callback):
    """Feeds fixed chances to the system's own `training_step` and notes down losses, gradients and state."""

    def __init__(self, chances: list) -> None:
        self.chances, self.losses, self.gradients, self.steps = iter(chances), {}, {}, []

    def attach(self, system: MethodSystem) -> None:
        plain = system.method.losses

        def losses(batch, alpha, _, **how):
            output = plain(batch, alpha, next(self.chances), **how)
            self.losses = {name: float(output.losses[f"{name}_loss"].detach()) for name in ("itc", "itm", "mlm")}
            return output

        system.method.losses = losses

    def on_after_backward(self, trainer: pl.Trainer, system: pl.LightningModule) -> None:
        state = AlbefState.from_system(system.state_dict())
        gradients = {name: p.grad.clone() for name, p in system.net.named_parameters()}
        self.gradients = to_official(AlbefState(gradients, state.teacher, state.queue))

    def on_train_batch_end(self, trainer: pl.Trainer, system: pl.LightningModule, *_) -> None:
        state = {name: x.clone() for name, x in to_official(AlbefState.from_system(system.state_dict())).items()}
        self.steps.append(Step(self.losses, self.gradients, state))


def run_ours(system: MethodSystem, batches: list, chances: list) -> list[Step]:
    recorder = Recorder(chances)
    recorder.attach(system)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=len(batches),
        callbacks=[recorder],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(system, train_dataloaders=torch.utils.data.DataLoader(batches, batch_size=None))
    return recorder.steps


def run_reference(
    model: AlbefReference,
    optimizer: torch.optim.Optimizer,
    batches: list,
    oracles: list,
    alphas: list[float],
    ids: bool,
) -> list[Step]:
    steps = []
    for batch, oracle, alpha in zip(batches, oracles, alphas, strict=True):
        who = {"image_ids": batch.image_id, "text_ids": batch.text_id} if ids else {}
        losses: Losses = model(batch.image.double(), batch.ids, batch.mask, alpha, **who, **oracle)
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
        named = {"itc": losses.ita, "itm": losses.itm, "mlm": losses.mlm}
        gradients = {name: p.grad.float() for name, p in model.named_parameters() if p.requires_grad}
        state = {name: x.clone() if x.dtype == torch.int64 else x.float() for name, x in model.state_dict().items()}
        steps.append(Step({name: float(x.detach()) for name, x in named.items()}, gradients, state))
    return steps


def assert_equal_steps(ours: list[Step], theirs: list[Step]) -> None:
    assert len(ours) == len(theirs)
    for n, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        assert mine.losses == pytest.approx(other.losses, abs=TOLERANCE, rel=0), f"step {n}"
        assert set(other.gradients) <= set(mine.gradients)
        assert_close(mine.gradients, other.gradients, f"step {n}, gradient of")
        assert mine.state.keys() == other.state.keys()
        assert_close(*(without_key_biases(state) for state in (mine.state, other.state)), f"step {n}, state")
        for name, x in other.gradients.items():
            if "key.bias" in name:
                assert x.abs().max() < TOLERANCE  # else they must not be left out above


def assert_close(mine: dict[str, Tensor], other: dict[str, Tensor], what: str) -> None:
    for name, x in other.items():
        atol = TOLERANCE * max(1.0, x.abs().max().item())  # only temp's gradient exceeds 2
        torch.testing.assert_close(mine[name], x, atol=atol, rtol=0, msg=lambda m, name=name: f"{what} {name}: {m}")


def without_key_biases(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state but for the biases of keys, which shift all scores of a query alike and so change nothing.

    Their gradient is zero but for rounding, and Adam makes steps of up to the learning rate out of that noise.
    """
    rest = {name: x for name, x in state.items() if not name.endswith("key.bias")}
    for name in [name for name in rest if name.endswith("qkv.bias")]:
        query, _, value = rest[name].chunk(3)
        rest[name] = torch.cat([query, value])
    return rest


@pytest.mark.parametrize("reference_mode", [True, False], ids=["reference", "fixed"])
@pytest.mark.parametrize(
    ("alpha", "ramp", "temperature", "momentum"),
    [
        (0.0, 0, 0.25, 0.995),
        (0.4, 0, 0.25, 0.995),
        (0.4, 3, 0.25, 0.995),
        (0.4, 0, 0.7, 0.995),  # beyond the clamp
        (0.4, 0, 0.25, 0.0),  # the teacher is the student, and ours computes nothing twice
    ],
)
def test_losses_gradients_and_state_agree_over_several_steps(
    reference_mode: bool, alpha: float, ramp: int, temperature: float, momentum: float
):
    generator = torch.Generator().manual_seed(3)
    sizes = TINY._replace(momentum=momentum)
    batches = [random_batch(sizes, BATCH, TOKENS, generator, groups=4) for _ in range(STEPS)]
    both = [fixed_chances(sizes, batch, generator) for batch in batches]
    model = make_reference(sizes, temperature=temperature, teacher_dropout=reference_mode)
    model = model.double()  # ours is measured against numbers without rounding
    optimizer = adamw(model, lr=LR, weight_decay=WEIGHT_DECAY, reference=reference_mode)
    system = make_system(
        sizes, lr=LR, weight_decay=WEIGHT_DECAY, alpha=alpha, alpha_ramp_steps=ramp, reference=reference_mode
    )
    load(system, model)  # rounds nothing: the weights were made in float32
    alphas = [alpha * min(1.0, n / ramp) if ramp else alpha for n in range(STEPS)]
    theirs = run_reference(model, optimizer, batches, [oracle for _, oracle in both], alphas, ids=not reference_mode)
    ours = run_ours(system, batches, [chances for chances, _ in both])
    assert_equal_steps(ours, theirs)
    if not reference_mode:
        assert torch.equal(system.queue.image_id, model.image_id_queue)
        assert torch.equal(system.queue.text_id, model.text_id_queue)


@pytest.mark.parametrize("reference_mode", [True, False], ids=["reference", "fixed"])
def test_teacher_drops_out_in_reference_mode_only(reference_mode: bool):
    sizes = TINY._replace(dropout=0.5)
    generator = torch.Generator().manual_seed(5)
    batch = random_batch(sizes, BATCH, TOKENS, generator)
    chances, _ = fixed_chances(sizes, batch, generator)
    system = make_system(sizes, reference=reference_mode)
    load(system, make_reference(sizes))

    def teacher_text() -> Tensor:
        return system.method.losses(batch, 0.4, chances).keys[1]

    assert torch.equal(teacher_text(), teacher_text()) is not reference_mode
    assert {m.training for m in system.twin.modules() if isinstance(m, nn.Dropout)} == {reference_mode}
    system.eval()
    assert torch.equal(teacher_text(), teacher_text())


def test_joint_batch_of_distinct_pairs_makes_both_modes_equal():
    """Without shared ids and before the queue holds one, the repaired targets are the published ones."""
    generator = torch.Generator().manual_seed(6)
    batch = random_batch(TINY, BATCH, TOKENS, generator)
    chances, _ = fixed_chances(TINY, batch, generator)
    losses = []
    for reference_mode in (True, False):
        system = make_system(reference=reference_mode)
        load(system, make_reference())
        losses.append({k: float(v.detach()) for k, v in system.method.losses(batch, 0.4, chances).losses.items()})
    assert losses[0] == pytest.approx(losses[1], abs=TOLERANCE)
