"""ALBEF's tasks equal independent plain ones in loss and every gradient, from weights in the published layout; the oracle in float64."""

from albef_pair import TINY, make_net, make_reference, random_batch, words_of
from albef_reference import AlbefReference
from albef_tasks_reference import EntailmentReference, Nlvr2Reference, VqaReference, decoder_named, second_gradients
from alignlab.methods.albef_entailment import AlbefEntailmentMethod
from alignlab.methods.albef_nlvr2 import AlbefNlvr2Method
from alignlab.methods.albef_vqa import AlbefVqaMethod
from alignlab.methods.method import Method
from alignlab.models.albef_checkpoint import from_official
from alignlab.runs.init_from import fitting
from alignlab.types.picture_tasks import Answers, JudgedBatch, QuestionBatch

import pytest
import torch
from torch import Tensor

TOLERANCE = 2e-6
BATCH, TOKENS = 5, 9


def started(method: Method, oracle: AlbefReference) -> Method:
    """A method with the oracle's weights, student and teacher, taken as a run takes another's."""
    taken, _ = fitting(from_official(oracle.state_dict()).of_system(), method)
    method.load_state_dict(taken, strict=False)
    method.settle(taken)
    return method.train()


def gradients(oracle: AlbefReference) -> dict[str, Tensor]:
    """The oracle's gradients by our names; zero where there is none."""
    named = oracle.state_dict(keep_vars=True)
    slopes = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in named.items()}
    return from_official(slopes).of_system()


def assert_equal_gradients(method: Method, wanted: dict[str, Tensor]) -> None:
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            slope = wanted[name].double()
            atol = TOLERANCE * max(1.0, slope.abs().max().item())
            torch.testing.assert_close(
                parameter.grad.double(), slope, atol=atol, rtol=0, msg=lambda m, n=name: f"{n}: {m}"
            )


@pytest.mark.parametrize("alpha", [0.0, 0.4])
@pytest.mark.parametrize("pictures", [1, 2], ids=["entailment", "nlvr2"])
def test_classes(pictures: int, alpha: float) -> None:
    generator, oracle = torch.Generator().manual_seed(1), make_reference(teacher_dropout=False)
    torch.manual_seed(3)
    pairs, label = random_batch(TINY, BATCH, TOKENS, generator), torch.tensor([0, 2, 1, 1, 0])
    plain = (EntailmentReference, Nlvr2Reference)[pictures - 1](oracle, 3)
    kind = (AlbefEntailmentMethod, AlbefNlvr2Method)[pictures - 1]
    method = started(kind(make_net(), classes=3, vocabulary=words_of(), alpha=alpha), oracle)
    method.net.head.load_state_dict(plain.head.state_dict())
    method.twin.teacher.head.load_state_dict(plain.head_m.state_dict())
    image = torch.randn(BATCH, pictures, *pairs.image.shape[1:], generator=generator)
    batch, plain = JudgedBatch(image, pairs.ids, pairs.mask, label), plain.double()
    wanted = plain(image.double(), batch.ids, batch.mask, label, alpha)
    wanted.backward()
    found = method(batch).loss
    found.backward()
    torch.testing.assert_close(found.double(), wanted, atol=TOLERANCE, rtol=0)
    slopes = gradients(oracle) | {f"net.head.{name}": p.grad for name, p in plain.head.named_parameters()}
    assert_equal_gradients(method, slopes | (second_gradients(plain) if pictures == 2 else {}))


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_vqa(alpha: float) -> None:
    generator, oracle = torch.Generator().manual_seed(2), make_reference(teacher_dropout=False)
    torch.manual_seed(3)
    pairs, plain = random_batch(TINY, BATCH, TOKENS, generator), VqaReference(oracle)
    said = random_batch(TINY, BATCH + 2, 5, generator)
    question, weight = torch.tensor([0, 1, 1, 1, 2, 3, 4]), torch.tensor([1.0, 0.3, 0.3, 0.4, 1.0, 0.6, 1.0])
    method = started(AlbefVqaMethod(make_net(), vocabulary=words_of(), alpha=alpha), oracle)
    method.net.decoder.load_state_dict(decoder_named(plain.decoder))
    method.twin.teacher.decoder.load_state_dict(decoder_named(plain.decoder_m))
    batch = QuestionBatch(*pairs[:3], Answers(said.ids, said.mask), question, weight)
    plain = plain.double()
    wanted = plain(batch.image.double(), *batch[1:6], alpha)
    wanted.backward()
    found = method(batch).loss
    found.backward()
    torch.testing.assert_close(found.double(), wanted, atol=TOLERANCE * float(wanted.detach()), rtol=0)
    decoder = {f"net.decoder.{name}": x for name, x in decoder_named(plain.decoder, "grad").items()}
    assert_equal_gradients(method, gradients(oracle) | decoder)
