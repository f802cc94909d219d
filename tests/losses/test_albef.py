"""ITC, ITM and hard negatives against sums written out, and R ranks against one."""

from alignlab.losses.albef import (
    Keys,
    hard_negatives,
    image_text_contrastive,
    image_text_matching,
    sameness,
    soft_contrastive,
)
from alignlab.types.pairs import PairIds

import pytest
import torch
import torch.nn.functional as F


def unit(*shape: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def plain_direction(features, keys, teacher, targets, temperature, alpha):
    """The reference's way: concatenated keys, a matrix of targets, log-softmax."""
    everything = torch.cat([keys.batch, keys.queue])
    soft = alpha * (teacher @ everything.T / temperature).softmax(1) + (1 - alpha) * targets
    return -((features @ everything.T / temperature).log_softmax(1) * soft).sum(1).mean()


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_no_concatenation_and_no_one_hot_equal_the_plain_form(alpha):
    features, teacher = unit(4, 8, seed=0).requires_grad_(), unit(4, 8, seed=1)
    keys = Keys(unit(4, 8, seed=2), unit(9, 8, seed=3))
    temperature = torch.tensor([0.07], dtype=torch.float64, requires_grad=True)
    loss, _ = soft_contrastive(features, keys, teacher, None, temperature, alpha)
    plain = plain_direction(features, keys, teacher, torch.eye(4, 13, dtype=torch.float64), temperature.detach(), alpha)
    torch.testing.assert_close(loss, plain, atol=1e-12, rtol=0)
    ours = torch.autograd.grad(loss, [features, temperature])
    leaf = temperature.detach().requires_grad_()
    student = features @ torch.cat([keys.batch, keys.queue]).T
    fixed = alpha * (teacher @ torch.cat([keys.batch, keys.queue]).T / leaf.detach()).softmax(1)
    fixed = fixed + (1 - alpha) * torch.eye(4, 13, dtype=torch.float64)
    theirs = torch.autograd.grad(-((student / leaf).log_softmax(1) * fixed).sum(1).mean(), [features, leaf])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=0)


def test_equal_ids_share_the_target():
    features, teacher = unit(3, 8, seed=0), unit(3, 8, seed=1)
    keys = Keys(unit(3, 8, seed=2), unit(4, 8, seed=3))
    own = PairIds(torch.tensor([5, 6, 5]), torch.tensor([1, 2, 3]))
    queue = PairIds(torch.tensor([6, -1, 9, 6]), torch.tensor([7, -1, 1, 2]))
    same = sameness(own, own, queue)
    targets = torch.tensor([[1, 0, 1, 0, 0, 1, 0], [0, 1, 0, 1, 0, 0, 1], [1, 0, 1, 0, 0, 0, 0]], dtype=torch.float64)
    assert torch.equal(torch.cat(same, 1), targets.bool())
    temperature = torch.tensor([0.1], dtype=torch.float64)
    loss, _ = soft_contrastive(features, keys, teacher, same, temperature, 0.3)
    plain = plain_direction(features, keys, teacher, targets / targets.sum(1, keepdim=True), temperature, 0.3)
    torch.testing.assert_close(loss, plain, atol=1e-12, rtol=0)


def test_ranks_with_all_keys_equal_one_rank_with_the_joint_batch():
    image, text, teacher_image, teacher_text = (unit(6, 8, seed=s).float() for s in range(4))
    queue, temperature = unit(5, 8, seed=9).float(), torch.tensor([0.1])
    ids = PairIds(torch.tensor([0, 1, 2, 3, 1, 5]), torch.arange(6))
    blank = PairIds(torch.full((5,), -1), torch.full((5,), -1))
    keys = Keys(teacher_image, queue), Keys(teacher_text, queue)
    whole = image_text_contrastive(image, text, *keys, sameness(ids, ids, blank), temperature, 0.4)
    parts = []
    for first in (0, 3):
        own = slice(first, first + 3)
        same = sameness(PairIds(*(x[own] for x in ids)), ids, blank)
        parts.append(image_text_contrastive(image[own], text[own], *keys, same, temperature, 0.4, first))
    torch.testing.assert_close(sum(p.loss for p in parts) / 2, whole.loss, atol=1e-6, rtol=0)
    torch.testing.assert_close(parts[1].image_to_text, whole.image_to_text[3:, 3:], atol=1e-6, rtol=0)


def test_hard_negatives_follow_the_softmax_and_never_take_the_same_id():
    torch.manual_seed(0)
    similarity = torch.tensor([[9.0, 1.0, 0.0, 2.0]]).repeat(4, 1)
    same = torch.eye(4, dtype=torch.bool)
    same[0, 3] = same[3, 0] = True
    draws = torch.stack([hard_negatives(similarity, similarity, same).text for _ in range(4000)])
    assert not any((draws[:, row] == row).any() for row in range(4)) and not (draws[:, 0] == 3).any()
    share = torch.bincount(draws[:, 0], minlength=4) / 4000
    expected = torch.tensor([-torch.inf, 1.0, 0.0, -torch.inf]).softmax(0)
    assert (share - expected).abs().max() < 0.03  # 4 standard errors


def test_extreme_similarities_do_not_break_the_draw():
    """The reference's multinomial stops with 'sum of probabilities <= 0' here (ALBEF issues 18, 93, 107, 131)."""
    similarity = torch.full((3, 3), -1e4) + torch.eye(3) * 2e4
    chosen = hard_negatives(similarity, similarity, torch.eye(3, dtype=torch.bool))
    assert chosen.valid.all() and not (chosen.image == torch.arange(3)).any()


def test_rows_without_a_negative_do_not_count():
    logits = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    same = torch.ones(2, 2, dtype=torch.bool)
    valid = hard_negatives(torch.randn(2, 2), torch.randn(2, 2), same).valid
    terms = image_text_matching(logits, valid)
    torch.testing.assert_close(terms.loss, F.cross_entropy(logits[:2], torch.tensor([1, 1])))
    everyone = image_text_matching(logits, torch.ones(2, dtype=torch.bool))
    torch.testing.assert_close(everyone.loss, F.cross_entropy(logits, torch.tensor([1, 1, 0, 0, 0, 0])))


def test_foils_are_more_false_rows_of_matching():
    g = torch.Generator().manual_seed(0)
    logits, foils = torch.randn(9, 2, generator=g), torch.tensor([True, False, True])
    valid = torch.ones(2, dtype=torch.bool)  # rows: 2 positives, 2 negative texts, 3 foils, 2 negative pictures
    found = image_text_matching(logits, valid, foils=foils)
    kept = torch.tensor([0, 1, 2, 3, 4, 6, 7, 8])
    label = torch.tensor([1, 1, 0, 0, 0, 0, 0, 0])
    torch.testing.assert_close(found.loss, torch.nn.functional.cross_entropy(logits[kept], label))
    torch.testing.assert_close(found.accuracy, (logits[kept].argmax(1) == label).float().mean())
