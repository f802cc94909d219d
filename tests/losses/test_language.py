"""Masking and the distilled cross-entropy."""

from alignlab.losses.language import distilled_cross_entropy, hide_marked, mask_capacity, mask_tokens

import pytest
import torch
import torch.nn.functional as F

IDS = {"mask_id": 3, "cls_id": 1, "vocab_size": 1000}


def texts(rows: int = 400, length: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 1000, (rows, length), generator=g)
    ids[:, 0] = 1
    mask = torch.arange(length)[None] < torch.randint(5, length + 1, (rows, 1), generator=g)
    return ids.masked_fill(~mask, 0), mask


def test_masking_hides_the_right_share_and_never_padding_or_cls():
    torch.manual_seed(0)
    ids, mask = texts()
    masked = mask_tokens(ids, mask, **IDS)
    hidden = masked.weight.bool()
    eligible = (mask & (ids != 1)).sum().item()
    assert abs(hidden.sum().item() / eligible - 0.15) < 0.02
    position = masked.position[hidden]
    assert len(position.unique()) == len(position)
    assert mask.flatten()[position].all() and (ids.flatten()[position] != 1).all()
    assert torch.equal(masked.label[hidden], ids.flatten()[position])
    seen = masked.ids.flatten()[position]
    assert abs((seen == 3).float().mean().item() - 0.8) < 0.05
    assert abs((seen == masked.label[hidden]).float().mean().item() - 0.1) < 0.05
    untouched = torch.ones(ids.numel(), dtype=torch.bool)
    untouched[position] = False
    assert torch.equal(masked.ids.flatten()[untouched], ids.flatten()[untouched])


def test_the_number_of_rows_depends_on_the_shape_alone():
    ids, mask = texts()
    sizes = {len(mask_tokens(ids, mask, **IDS).position) for _ in range(3)}
    assert sizes == {mask_capacity(ids.numel(), 0.15)} and mask_capacity(1, 0.15) == 1


def test_nothing_masked_gives_zero_and_not_nan():
    ids = torch.tensor([[1, 0, 0]])
    masked = mask_tokens(ids, ids > 0, **IDS)
    logits = torch.randn(len(masked.label), 1000, requires_grad=True)
    loss = distilled_cross_entropy(logits, masked.label, masked.weight, None, 0.0)
    loss.backward()
    assert loss == 0 and torch.equal(masked.ids, ids) and logits.grad.abs().sum() == 0


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_distilled_cross_entropy_equals_two_losses_mixed(alpha):
    g = torch.Generator().manual_seed(0)
    logits, teacher = torch.randn(5, 11, generator=g, requires_grad=True), torch.randn(5, 11, generator=g)
    label, weight = torch.randint(11, (5,), generator=g), torch.tensor([1.0, 1, 0, 1, 0])
    ours = distilled_cross_entropy(logits, label, weight, teacher, alpha)
    keep = weight.bool()
    soft = -(teacher.softmax(1) * logits.log_softmax(1)).sum(1)[keep].mean()
    plain = (1 - alpha) * F.cross_entropy(logits[keep], label[keep]) + alpha * soft
    torch.testing.assert_close(ours, plain, atol=1e-6, rtol=0)
    torch.testing.assert_close(*(torch.autograd.grad(x, logits)[0] for x in (ours, plain)), atol=1e-6, rtol=0)


def test_marked_tokens_alone_are_hidden_in_a_number_of_rows_that_is_fixed():
    ids = torch.tensor([[1, 5, 6, 7], [1, 8, 9, 0], [1, 5, 6, 0]])
    marked = torch.tensor([[0, 0, 1, 0], [0, 0, 0, 0], [0, 1, 1, 0]]).bool()
    hidden = hide_marked(ids, marked, mask_id=3)
    assert hidden.ids.tolist() == [[1, 5, 3, 7], [1, 8, 9, 0], [1, 3, 3, 0]] and len(hidden.position) == 2 * 3
    assert hidden.position[hidden.weight > 0].tolist() == [2, 9, 10] and hidden.label[:3].tolist() == [6, 5, 6]
    assert hide_marked(ids, marked, mask_id=3, per_row=1).weight.tolist() == [1, 1, 1]
    none = hide_marked(ids, torch.zeros_like(marked), mask_id=3)
    assert not none.weight.any() and torch.equal(none.ids, ids)
