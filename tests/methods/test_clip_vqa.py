"""VQA as classification with a CLIP: the loss by hand, state, accumulation, learning by kind, answers beyond the list."""

import tiny_tasks
from alignlab.methods.clip_vqa import ClipVqaMethod
from tiny_questions import N, asked, cut
from tiny_tasks import towers
from tiny_training import WORDS

import pytest
import torch
from torch.nn import functional as F


def make(**settings) -> ClipVqaMethod:
    return tiny_tasks.make(ClipVqaMethod, build=towers(), **{"vocabulary": WORDS._replace(answers=N), **settings})


def test_the_loss_sums_over_a_questions_answers() -> None:
    method, batch = make(alpha=0.4), asked()
    with torch.no_grad():
        method.twin.teacher.head[2].weight.mul_(3)  # another opinion
    rows = (batch.image[:, None], batch.ids, batch.mask)
    said, thought = method.net(*rows).log_softmax(1), method.twin.teacher(*rows).softmax(1)
    wanted = {"loss": torch.zeros(()), "answer_loss": torch.zeros(())}
    for question, listed, weight in zip(batch.question, batch.listed, batch.weight, strict=True):
        plain, soft = -said[question, listed], -(thought[question] * said[question]).sum()
        wanted["loss"] = wanted["loss"] + weight * (0.6 * plain + 0.4 * soft) / 8
        wanted["answer_loss"] = wanted["answer_loss"] + weight * plain / 8
    found = method(batch)
    torch.testing.assert_close(found.loss, wanted["loss"], atol=2e-6, rtol=0)
    torch.testing.assert_close(found.metrics["answer_loss"], wanted["answer_loss"], atol=2e-6, rtol=0)
    known = batch._replace(weight=batch.weight.index_fill(0, torch.tensor([3]), 0.0))
    beyond = batch._replace(listed=batch.listed.index_fill(0, torch.tensor([3]), -1))
    torch.testing.assert_close(method(beyond).loss, method(known).loss)


def test_what_learns_and_what_changes() -> None:
    tiny_tasks.check_gradients(make(), asked(), {"logit_scale"})
    tiny_tasks.check_state(make(), asked(), "head.0.weight")
    tiny_tasks.check_accumulation(make(), asked(), cut)
    tiny_tasks.check_teacher(make, asked(), drops=False)


def test_it_learns_a_batch_and_says_so_by_kind() -> None:
    method, batch = make(distill=False), asked()
    first = torch.tensor([row != 2 for row in range(9)])  # one answer each
    listed = batch.listed[first]
    batch = batch._replace(question=torch.arange(8), listed=listed, weight=torch.ones(8), credit=F.one_hot(listed, N))
    losses = tiny_tasks.trained(method, batch._replace(candidates=None, credit=None, kind=None), 60, lr=1e-2)
    assert losses[-1] < 0.2 * losses[0]
    assert method.eval().validate(batch._replace(credit=batch.credit.float()))["accuracy"] == 1
    assert method.summarise() == {"a_accuracy": 1.0, "b_accuracy": 1.0} and method.summarise() == {}


def test_data_without_a_list_are_refused() -> None:
    with pytest.raises(ValueError, match="data: they have no list of answers"):
        make(vocabulary=WORDS)
