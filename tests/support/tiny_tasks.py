"""Tasks on pictures at a size of milliseconds: nets, batches, what any of the methods must do."""

from collections.abc import Callable
from functools import partial
from typing import Any

from alignlab.methods.parts.distilled import DistilledMethod
from alignlab.methods.step import Step
from alignlab.models.albef import Albef, AlbefEncoder
from alignlab.models.clip import Clip
from alignlab.models.text import TextTower
from alignlab.models.vision import vision_transformer
from alignlab.types.picture_tasks import JudgedBatch
from tiny_training import WORDS, pairs

import torch

OPTIONS = {"directed_heads": True, "late_interaction_dim": 8, "fusion_positions": True}


def net(**settings) -> Callable[..., Albef]:
    """Builds an ALBEF of two layers of each kind, with all the options of small nets."""
    vision = partial(vision_transformer, image_size=16, patch_size=8, width=16, depth=1, heads=2)
    sizes = {"text_width": 16, "heads": 2, "text_layers": 1, "fusion_layers": 2, "max_positions": 12, "embed_dim": 8}
    dropout = settings.pop("dropout", 0.0)
    return partial(Albef, partial(AlbefEncoder, vision, dropout=dropout, attention_dropout=0.0, **sizes, **OPTIONS))


def towers() -> Callable[..., Clip]:
    """Builds a CLIP of one layer each."""
    vision = partial(vision_transformer, image_size=16, patch_size=8, width=16, depth=1, heads=2)
    return partial(Clip, vision, partial(TextTower, context_length=12, width=16, depth=1, heads=2), embed_dim=8)


def make(method: type[DistilledMethod], **settings) -> DistilledMethod:
    """A method, its weights always the same; on an ALBEF unless a `build` is given."""
    torch.manual_seed(0)
    build = settings.pop("build", None) or net(dropout=settings.pop("dropout", 0.0))
    return method(build, **{"vocabulary": WORDS, **settings})


def judged(size: int = 8, pictures: int = 1, classes: int = 3, seed: int = 0) -> JudgedBatch:
    """Random texts about random pictures, the first token [CLS], with random labels."""
    batch, g = pairs(size, seed), torch.Generator().manual_seed(seed + 1)
    ids = torch.cat([torch.full((size, 1), WORDS.cls_id), batch.ids[:, 1:]], 1)
    image = torch.randn(size, pictures, 3, 16, 16, generator=g)
    return JudgedBatch(image, ids, batch.mask, torch.randint(classes, (size,), generator=g))


def trained(method: DistilledMethod, batch: Any, steps: int, lr: float = 1e-2) -> list[float]:
    """The losses of so many steps on one batch, in a loop without a trainer."""
    optimizer = torch.optim.Adam([p for p in method.net.parameters() if p.requires_grad], lr=lr)
    losses = []
    for number in range(steps):
        step = Step(number)
        method.before_step(step)
        output = method(batch, step)
        output.loss.backward()
        method.after_backward(output.kept)
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(step)
        losses.append(output.loss.item())
    return losses


def check_gradients(method: DistilledMethod, batch: Any, idle: set[str]) -> None:
    """All of the net learns but for what the task doesn't use (parts of the encoder), and the teacher doesn't."""
    method(batch).loss.backward()
    frozen = {name.split(".")[1] for name, p in method.net.named_parameters() if not p.requires_grad}
    assert frozen == idle
    without = [n for n, p in method.net.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert without == []
    assert all(p.grad is None and not p.requires_grad for p in method.twin.parameters())


FUSION = "encoder.fusion.1.cross_attention.out.weight"


def check_state(method: DistilledMethod, batch: Any, watched: str = FUSION) -> None:
    """Forward and validation change nothing; a step moves the teacher by 1 - momentum towards the student."""
    before = {name: x.clone() for name, x in method.state_dict().items()}
    method(batch)
    method.validate(batch)
    assert all(torch.equal(before[name], x) for name, x in method.state_dict().items())
    trained(method, batch, 2)  # the teacher moves first: by what the first step has changed
    assert not torch.equal(method.state_dict()[f"twin.teacher.{watched}"], before[f"twin.teacher.{watched}"])


def check_teacher(make_method: Callable[..., DistilledMethod], batch: Any, drops: bool = True) -> None:
    """alpha says what its opinion counts; what wasn't loaded is the student; dropout, where the net has such, is in it
    as the reference's."""
    losses = {}
    for alpha in (0.0, 0.4):
        for disturbed in (False, True):
            method = make_method(alpha=alpha)
            if disturbed:
                with torch.no_grad():
                    for parameter in method.twin.parameters():
                        parameter.add_(0.1)
            losses[alpha, disturbed] = method(batch).loss.item()
    assert losses[0.0, True] == losses[0.0, False] and losses[0.4, True] != losses[0.4, False]
    method.settle({"net.encoder.fusion.0.feed_forward.inner.weight"})
    for name, parameter in method.net.named_parameters():
        assert torch.equal(parameter, method.twin.teacher.get_parameter(name))
    assert make_method(distill=False)(batch).loss.item() == losses[0.0, False]
    for reference in (False, True) if drops else ():
        method = make_method(dropout=0.5, reference=reference).train()
        method(batch)
        assert method.twin.teacher.training is reference


def check_accumulation(method: DistilledMethod, batch: Any, cut: Callable[[Any, slice], Any]) -> None:
    """Halves of a batch add up to the whole in loss, metrics and gradients."""
    whole = method(batch)
    whole.loss.backward()
    wanted = {name: p.grad.clone() for name, p in method.net.named_parameters() if p.grad is not None}
    method.zero_grad()
    halves = [cut(batch, part) for part in (slice(0, 4), slice(4, 8))]
    parts = [method(half, Step(0, index, 2, lambda: halves)) for index, half in enumerate(halves)]
    sum(part.loss for part in parts).backward()
    torch.testing.assert_close(sum(part.loss for part in parts), whole.loss)
    for name, value in whole.metrics.items():
        torch.testing.assert_close(sum(part.metrics[name] for part in parts), value)
    for name, slope in wanted.items():
        torch.testing.assert_close(method.net.get_parameter(name).grad, slope, atol=1e-6, rtol=1e-4)
