"""Entailment: gradients, state, teacher, accumulation, learning, what padding and the picture do, bad input."""

import math

import tiny_tasks
from alignlab.methods.albef_entailment import AlbefEntailmentMethod
from tiny_tasks import judged

import pytest
import torch


def make(**settings) -> AlbefEntailmentMethod:
    return tiny_tasks.make(AlbefEntailmentMethod, **settings)


def cut(batch, part):
    return type(batch)(*(x[part] for x in batch))


def test_what_learns_and_what_changes() -> None:
    tiny_tasks.check_gradients(make(), judged(), {"image_projection", "text_projection", "language_head"})
    tiny_tasks.check_state(make(), judged())
    tiny_tasks.check_accumulation(make(), judged(), cut)


def test_the_teacher() -> None:
    tiny_tasks.check_teacher(make, judged())


def test_it_learns_a_batch_and_begins_blind() -> None:
    method, batch = make(distill=False), judged()
    losses = tiny_tasks.trained(method, batch, 40, lr=2e-2)
    assert losses[0] == pytest.approx(math.log(3), abs=0.1) and losses[-1] < 0.3 * losses[0]
    assert method.blind(batch)["class_loss"].loss == math.log(3)
    found = method.validate(batch)
    assert found["accuracy"] == 1 and set(found) == {"loss", "accuracy"}


def test_padding_changes_nothing_and_the_picture_does() -> None:
    method, batch = make(), judged()
    plain = method(batch).loss
    torch.testing.assert_close(method(batch._replace(ids=torch.where(batch.mask, batch.ids, 9))).loss, plain)
    assert not torch.allclose(method(batch._replace(image=batch.image.flip(0))).loss, plain)


@pytest.mark.parametrize("wrong", [{"alpha": 1.5}, {"momentum": -0.1}, {"classes": 1}])
def test_impossible_settings_name_their_key(wrong) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
        make(**wrong)
