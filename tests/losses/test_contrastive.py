"""InfoNCE and SigLIP against plain forms; duplicates; chunks; bad input."""

from alignlab.losses.contrastive import InfoNce, PairIds, SigLip

import pytest
import torch
import torch.nn.functional as F


def vectors(pairs: int = 7) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    image, text = (F.normalize(torch.randn(pairs, 5, generator=g), dim=1).requires_grad_() for _ in range(2))
    return [image, text, torch.tensor([9.0], requires_grad=True), torch.tensor([-2.0], requires_grad=True)]


IDS = PairIds(
    torch.tensor([0, 1, 0, 2, 3, 4, 5]), torch.tensor([0, 1, 2, 3, 1, 4, 5])
)  # pictures 0 = 2, captions 1 = 4
SAME = torch.eye(7, dtype=torch.bool)
SAME[0, 2] = SAME[2, 0] = SAME[1, 4] = SAME[4, 1] = True


def plain_info_nce(image, text, scale, duplicates):
    logits = scale * image @ text.T
    target = torch.eye(7) if duplicates == "negatives" else SAME / SAME.sum(1, keepdim=True)
    if duplicates == "masked":
        target, logits = torch.eye(7), logits.masked_fill(SAME & ~torch.eye(7, dtype=torch.bool), -1e9)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def plain_siglip(image, text, scale, bias, duplicates):
    positive = torch.eye(7, dtype=torch.bool) if duplicates == "negatives" else SAME
    terms = F.logsigmoid((scale * image @ text.T + bias) * (2.0 * positive - 1))
    if duplicates == "masked":
        terms = terms.masked_fill(SAME & ~torch.eye(7, dtype=torch.bool), 0.0)
    return -terms.sum() / 7


@pytest.mark.parametrize("duplicates", ["negatives", "positives", "masked"])
def test_info_nce_equals_the_plain_form(duplicates):
    ours, theirs = vectors(), vectors()
    value = InfoNce(duplicates=duplicates)(*ours[:3], ids=IDS)
    wanted = plain_info_nce(*theirs[:3], duplicates)
    (value * 3).backward()
    (wanted * 3).backward()
    torch.testing.assert_close(value, wanted, rtol=1e-6, atol=1e-6)
    for a, b in zip(ours[:3], theirs[:3], strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chunk_size", [1, 3, 1024])
@pytest.mark.parametrize("duplicates", ["negatives", "positives", "masked"])
def test_siglip_equals_the_plain_form_in_chunks_of_any_size(duplicates, chunk_size):
    ours, theirs = vectors(), vectors()
    value = SigLip(duplicates=duplicates, chunk_size=chunk_size)(*ours, ids=IDS)
    wanted = plain_siglip(*theirs, duplicates)
    (value * 3).backward()
    (wanted * 3).backward()
    torch.testing.assert_close(value, wanted, rtol=1e-6, atol=1e-6)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-6)


def test_siglip_without_ids_counts_the_diagonal_alone():
    torch.testing.assert_close(SigLip()(*vectors()), plain_siglip(*vectors(), "negatives"), rtol=1e-6, atol=1e-6)


def test_untrained_pairs_cost_the_logarithm_of_the_batch():
    image = F.normalize(torch.ones(8, 4), dim=1)
    torch.testing.assert_close(InfoNce()(image, image, torch.ones(1)), torch.tensor(8.0).log(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("loss", [InfoNce(), SigLip()], ids=["info_nce", "siglip"])
def test_autocast_does_not_reach_the_logits(loss):
    arguments = vectors()[:3]
    wanted = loss(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(*arguments), wanted)


def test_bad_input_is_refused():
    for loss in (InfoNce(), SigLip()):
        with pytest.raises(ValueError, match=r"batch_size=1"):
            loss(*vectors(1)[:3])
    with pytest.raises(ValueError, match="logit_bias=null"):
        InfoNce()(*vectors())
    with pytest.raises(ValueError, match="gather_with_grad"):
        InfoNce(local_loss=False, gather_with_grad=False)
    with pytest.raises(ValueError, match="duplicates=all"):
        SigLip(duplicates="all")
    with pytest.raises(ValueError, match="chunk_size=0"):
        SigLip(chunk_size=0)
