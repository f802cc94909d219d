"""Entailment with a CLIP: the loss by hand, gradients, state, teacher, accumulation, learning, two pictures, bad input."""

import math

import tiny_tasks
from alignlab.methods.clip_entailment import ClipEntailmentMethod
from tiny_tasks import judged, towers

import pytest
import torch
from torch.nn import functional as F

HEAD = "head.0.weight"


def make(**settings) -> ClipEntailmentMethod:
    return tiny_tasks.make(ClipEntailmentMethod, build=towers(), **settings)


def cut(batch, part):
    return type(batch)(*(x[part] for x in batch))


@pytest.mark.parametrize("pictures", [1, 2])
def test_the_loss_is_what_the_page_says(pictures: int) -> None:
    method, batch = make(pictures=pictures, alpha=0.4), judged(pictures=pictures)
    with torch.no_grad():
        method.twin.teacher.head[2].weight.mul_(3)  # another opinion

    def logits(net: torch.nn.Module) -> torch.Tensor:
        clip, size = net.clip, 8**0.5
        y = F.normalize(clip.text_projection(clip.text(batch.ids, batch.mask)), dim=1) * size
        parts = [y]
        for place in range(pictures):
            x = F.normalize(clip.image_projection(clip.vision(batch.image[:, place])), dim=1) * size
            parts += [x, x * y, (x - y).abs()]
        first, _, last = net.head
        return F.linear(F.relu(F.linear(torch.cat(parts, 1), first.weight, first.bias)), last.weight, last.bias)

    own, teacher = logits(method.net), logits(method.twin.teacher).softmax(1).detach()
    plain = F.cross_entropy(own, batch.label)
    wanted = 0.6 * plain - 0.4 * (teacher * own.log_softmax(1)).sum(1).mean()
    found = method(batch)
    torch.testing.assert_close(found.loss, wanted, atol=2e-6, rtol=0)
    torch.testing.assert_close(found.metrics["class_loss"], plain, atol=2e-6, rtol=0)
    learns = [p for p in method.net.parameters() if p.requires_grad]
    slopes = [torch.autograd.grad(loss, learns) for loss in (found.loss, wanted)]
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, atol=2e-6, rtol=0)


def test_what_learns_and_what_changes() -> None:
    tiny_tasks.check_gradients(make(), judged(), {"logit_scale"})
    tiny_tasks.check_state(make(), judged(), HEAD)
    tiny_tasks.check_accumulation(make(), judged(), cut)
    tiny_tasks.check_teacher(make, judged(), drops=False)


def test_it_learns_a_batch_and_begins_blind() -> None:
    method, batch = make(distill=False), judged()
    losses = tiny_tasks.trained(method, batch, 40, lr=1e-2)
    assert losses[0] == pytest.approx(math.log(3), abs=0.2) and losses[-1] < 0.3 * losses[0]
    assert method.blind(batch)["class_loss"].loss == math.log(3)
    assert method.validate(batch)["accuracy"] == 1


@pytest.mark.parametrize("wrong", [{"classes": 1}, {"pictures": 0}])
def test_impossible_settings_name_their_key(wrong) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))}=. must be at least"):
        make(**wrong)
