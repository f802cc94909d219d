"""ALBEF: state, gradients, alpha 0, bad input, learning."""

from functools import partial

from alignlab.methods.parts.chances import Chances, Draws, joint_draws
from alignlab.methods.step import Step
from alignlab.models.albef import Albef, AlbefEncoder
from alignlab.models.vision import vision_transformer
from alignlab.optim.adamw import adamw
from alignlab.systems.method_system import MethodSystem
from alignlab.types.pairs import PairBatch, Vocabulary
from tiny_training import albef_system, told

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

WORDS = Vocabulary(size=40, pad_id=0, cls_id=1, sep_id=2, mask_id=3)
SMALL = {"directed_heads": True, "late_interaction_dim": 8, "fusion_positions": True}  # options of the net


def make_system(**settings) -> MethodSystem:
    torch.manual_seed(0)
    vision = partial(vision_transformer, image_size=16, patch_size=8, width=16, depth=2, heads=2)
    encoder = partial(
        AlbefEncoder, vision, text_width=16, heads=2, text_layers=1, fusion_layers=2, max_positions=12, embed_dim=8,
        dropout=settings.pop("dropout", 0.0), attention_dropout=0.0,
        gradient_checkpointing=settings.pop("gradient_checkpointing", False),
        **{key: settings.pop(key) for key in SMALL if key in settings},
    )  # fmt: skip
    optim = partial(adamw, lr=settings.pop("lr", 1e-3))
    system = albef_system(partial(Albef, encoder), optim, WORDS, queue_size=12, **settings)
    system.configure_model()
    return system


def make_batch(size: int = 6, seed: int = 0) -> PairBatch:
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, WORDS.size, (size, 7), generator=g)
    ids[:, 0] = WORDS.cls_id
    mask = torch.arange(7)[None] < torch.randint(3, 8, (size, 1), generator=g)
    index = torch.arange(size) + 100 * seed
    return PairBatch(
        torch.randn(size, 3, 16, 16, generator=g), ids.masked_fill(~mask, WORDS.pad_id), mask, index, index
    )


def fit(system: MethodSystem, batches: list[PairBatch], steps: int, **settings) -> pl.Trainer:
    trainer = pl.Trainer(
        max_steps=steps, max_epochs=-1, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False, num_sanity_val_steps=0,
        **settings,
    )  # fmt: skip
    trainer.fit(system, DataLoader(batches, batch_size=None))
    return trainer


def state_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_every_parameter_gets_a_gradient_and_the_teacher_none():
    system = make_system(alpha=0.4)
    system.method.losses(make_batch(), 0.4).losses["loss"].backward()
    missing = [name for name, p in system.net.named_parameters() if p.grad is None]
    assert missing == []
    zero = [name for name, p in system.net.named_parameters() if not p.grad.abs().sum() > 0]
    assert zero == []
    assert all(p.grad is None and not p.requires_grad for p in system.twin.parameters())


def test_validation_leaves_teacher_and_queues_bit_identical():
    system = make_system()
    batches = [make_batch(seed=s) for s in range(3)]
    trainer = fit(system, batches, 3)
    before = state_of(system)
    trainer.validate(system, DataLoader(batches, batch_size=None), verbose=False)
    after = state_of(system)
    assert before.keys() == after.keys() and "queue.image" in before and "twin.teacher.text_projection.weight" in before
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_training_moves_teacher_and_queues():
    system = make_system(momentum=0.9)
    before = state_of(system)
    fit(system, [make_batch(seed=s) for s in range(3)], 3)
    after = state_of(system)
    assert not torch.equal(before["queue.image"], after["queue.image"])
    assert after["queue.pointer"].item() == (3 * 6) % 12
    assert after["queue.image_id"].tolist() == [*range(200, 206), *range(100, 106)]
    name = "text_projection.weight"
    assert not torch.equal(before[f"twin.teacher.{name}"], after[f"twin.teacher.{name}"])


def test_teacher_is_the_running_mean_of_the_students_before_each_step():
    system = make_system(momentum=0.75)
    students = []
    original = system.twin.update

    def update(student, momentum):
        students.append(student.text_projection.weight.detach().clone())
        original(student, momentum)

    system.twin.update = update
    start = system.net.encoder.text_projection.weight.detach().clone()
    fit(system, [make_batch(seed=s) for s in range(4)], 4)
    expected = start
    for student in students:
        expected = 0.75 * expected + 0.25 * student
    torch.testing.assert_close(system.twin.teacher.text_projection.weight, expected, atol=1e-6, rtol=0)
    assert torch.equal(students[0], start) and not torch.equal(students[1], start)


def test_alpha_zero_does_not_depend_on_the_teachers_opinion_on_words():
    system, batch = make_system(), make_batch()
    torch.manual_seed(1)
    plain = system.method.losses(batch, 0.0).losses
    with torch.no_grad():
        system.twin.teacher.language_head.bias.normal_()
    torch.manual_seed(1)
    again = system.method.losses(batch, 0.0).losses
    torch.manual_seed(1)
    distilled = system.method.losses(batch, 0.4).losses
    assert torch.equal(plain["mlm_loss"], again["mlm_loss"])
    assert not torch.equal(plain["mlm_loss"], distilled["mlm_loss"])


def test_ids_matter_except_in_the_reference():
    system, batch = make_system(), make_batch()
    twice = batch._replace(image_id=torch.zeros(6, dtype=torch.int64))
    apart, together = (system.method.losses(b, 0.0).losses for b in (batch, twice))
    assert torch.isfinite(together["loss"]) and not torch.equal(apart["itc_loss"], together["itc_loss"])
    system.method.reference = True
    apart, together = (system.method.losses(b, 0.0).losses for b in (batch, twice))
    assert torch.equal(apart["itc_loss"], together["itc_loss"])


def test_the_teacher_has_dropout_only_as_the_reference_has_it():
    for reference in (False, True):
        system = make_system(reference=reference, dropout=0.5)
        system.train()
        system.method.losses(make_batch(), 0.4)
        assert system.twin.teacher.training is reference


def test_batch_of_one_is_a_clear_error():
    with pytest.raises(ValueError, match="batch_size must be at least 2"):
        make_system().method.losses(make_batch(1), 0.4)


@pytest.mark.parametrize("fuse", [True, False])
def test_without_momentum_the_student_is_its_own_teacher(fuse):
    runs = []
    for momentum in (0.0, 0.5):  # a new twin equals its student
        system = make_system(momentum=momentum)
        torch.manual_seed(3)
        loss = system.method.losses(make_batch(), 0.4, fuse=fuse).losses["loss"]
        loss.backward()
        runs.append((loss, system.net.encoder.image_projection.weight.grad))
    torch.testing.assert_close(*(loss for loss, _ in runs), atol=1e-6, rtol=0)
    torch.testing.assert_close(*(gradient for _, gradient in runs), atol=1e-6, rtol=0)


def test_before_fusion_starts_only_the_towers_learn():
    system = make_system(fuse_from_step=2)
    before = state_of(system.net)
    fit(system, [make_batch(seed=s) for s in range(2)], 2)
    after = state_of(system.net)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("vision" in name for name in moved) and any("text_projection" in name for name in moved)
    fusion = "encoder.fusion.0.cross_attention.out.bias"
    assert not {"matching_head.bias", "encoder.language_head.bias", fusion} & moved
    itc = system.method.losses(make_batch(), 0.4, fuse=False).losses["itc_loss"]
    torch.testing.assert_close(itc, system.method.losses(make_batch(), 0.4).losses["itc_loss"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("wrong", [{"alpha": 1.5}, {"momentum": -0.1}, {"mask_probability": 0.0}])
def test_impossible_settings_name_their_key(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
        make_system(**wrong)


def test_same_seed_same_losses_bit_for_bit_and_gradient_checkpointing_changes_nothing():
    runs = []
    for checkpointing in (False, False, True):
        system = make_system(gradient_checkpointing=checkpointing)
        torch.manual_seed(3)
        loss = system.method.losses(make_batch(), 0.4).losses["loss"]
        loss.backward()
        runs.append((loss.detach(), system.net.encoder.text_projection.weight.grad))
    assert torch.equal(runs[0][0], runs[1][0]) and torch.equal(runs[0][1], runs[1][1])
    assert torch.equal(runs[0][0], runs[2][0]) and torch.allclose(runs[0][1], runs[2][1], atol=1e-7)


def test_overfits_one_batch():
    system, batch = make_system(lr=5e-3, alpha=0.0, momentum=0.5), make_batch()
    torch.manual_seed(0)
    first = system.method.losses(batch, 0.0).losses
    fit(system, [batch] * 400, 400)
    system.method.eval()
    last = system.method.losses(batch, 0.0).losses
    assert last["itm_loss"] < 0.1 < first["itm_loss"]
    assert last["mlm_loss"] < 0.5 * first["mlm_loss"]
    assert last["itm_accuracy"] == 1.0


def test_sentences_and_foils_are_learnt_from_and_every_option_gets_a_gradient():
    system, batch = make_system(alpha=0.4, **SMALL), told(make_batch())
    found = system.method.losses(batch, 0.4).losses
    assert {"salient_loss", "filip_loss", "itm_loss"} < found.keys() and all(torch.isfinite(x) for x in found.values())
    found["loss"].backward()
    assert [name for name, p in system.net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    weights = {"itc_loss": 1, "itm_loss": 1, "mlm_loss": 1, "salient_loss": 1, "filip_loss": 1}
    torch.testing.assert_close(found["loss"], sum(found[name] for name in weights))
    # a hidden word by hand: what the net says of it in its own sentence, beside its own picture
    encoder, sentences, total = system.net.encoder.eval(), batch.sentences, []
    tokens = encoder.encode_image(batch.image).tokens
    for picture, row in sentences.valid.nonzero().tolist():
        place = sentences.telling[picture, row].nonzero()[0]
        ids = sentences.ids[picture, row].scatter(0, place, WORDS.mask_id)[None]
        mask, states = torch.ones_like(ids, dtype=torch.bool), encoder.image_states(tokens[picture : picture + 1])
        text = encoder.text_tokens(ids, mask)
        hidden = encoder.fuse(text, mask, states, masked_rows=slice(0, 1), masked_position=place).masked
        total.append(
            torch.nn.functional.cross_entropy(encoder.language_logits(hidden), sentences.ids[picture, row, place])
        )
    torch.testing.assert_close(found["salient_loss"], torch.stack(total).mean(), atol=1e-5, rtol=0)


def test_before_fusion_starts_words_and_patches_are_compared_and_no_option_of_the_fusion_moves():
    system = make_system(fuse_from_step=2, **SMALL)
    before = state_of(system.net)
    fit(system, [told(make_batch(seed=s)) for s in range(2)], 2)
    moved = {name for name, x in state_of(system.net).items() if not torch.equal(before[name], x)}
    assert {"encoder.late_interaction.word.weight", "token_scale"} < moved
    assert not {"encoder.late_interaction.log_affinity", "encoder.fusion_positions.linear.bias"} & moved
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in system.net.parameters())


def test_before_teaching_starts_there_is_neither_teacher_nor_queue_and_then_the_teacher_is_the_student():
    batch, early = make_batch(), Step(2)
    losses = []
    for settings in ({"momentum": 0.9, "alpha": 0.4, "teach_from_step": 3}, {"momentum": 0.0, "alpha": 0.0}):
        system = make_system(**settings)
        with torch.no_grad():  # neither counts
            system.twin.teacher.text_projection.weight.normal_()
            system.queue.image.copy_(torch.nn.functional.normalize(torch.randn(12, 8), dim=1))
        losses.append(system.method.losses(batch, 0.0, taught=False).losses["itc_loss"])
        if settings["momentum"]:
            torch.manual_seed(1)
            losses.append(system.method(batch, early).metrics["itc_loss"])
            assert not torch.equal(system.method(batch, Step(3)).metrics["itc_loss"], losses[0])
            system.method.before_step(early)
            assert torch.equal(system.twin.teacher.text_projection.weight, system.net.encoder.text_projection.weight)
            system.net.encoder.text_projection.weight.data.add_(1.0)
            system.method.before_step(Step(3))
            moved = system.net.encoder.text_projection.weight - system.twin.teacher.text_projection.weight
            torch.testing.assert_close(moved, torch.full_like(moved, 0.9), atol=1e-5, rtol=0)
    assert torch.equal(losses[0], losses[1]) and torch.equal(losses[0], losses[2])
    assert Step(5).ramped(1.0, 4, 3) == 0.5 and Step(2).ramped(1.0, 0, 3) == 0.0 and Step(3).ramped(1.0, 0, 3) == 1.0


def test_a_tokenizer_without_a_token_that_hides_words_is_refused() -> None:
    system = make_system()
    with pytest.raises(ValueError, match="no token that hides a word"):
        type(system.method)(lambda vocab_size: system.net, vocabulary=WORDS._replace(mask_id=None), queue_size=12)


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, SMALL], ids=["published", "small"])
def test_losses_and_gradients_on_a_gpu_are_the_cpu_s(options: dict) -> None:
    batch, results = make_batch(8), []
    for device in map(torch.device, ("cpu", "cuda")):
        method = make_system(**options).method.to(device)
        width = method.net.encoder.embeddings.position.num_embeddings
        # on the CPU for both: a generator's numbers are its device's own
        draws = joint_draws(0, 5, 8, width=width, pool=8, vocab_size=WORDS.size, device=torch.device("cpu"))
        chances = Chances(draws=Draws(*(x.to(device) for x in draws)))
        losses = method.losses(batch.moved(device), 0.4, chances).losses
        losses["loss"].backward()
        gradients = {name: p.grad.cpu() for name, p in method.named_parameters() if p.grad is not None}
        results.append(({name: x.item() for name, x in losses.items()}, gradients))
    (wanted, slopes), (found, other) = results
    assert found == pytest.approx(wanted, rel=1e-4) and set(slopes) == set(other)
    scale = max(x.abs().max() for x in slopes.values())
    for name, slope in slopes.items():
        torch.testing.assert_close(other[name], slope, rtol=1e-3, atol=1e-4 * float(scale), msg=name)
