"""The divergence of two language models' distributions, from hidden states and in chunks."""

from alignlab.losses.distillation import distillation_loss, generalized_jsd

import pytest
import torch
from torch.testing import assert_close

BETAS = (0.0, 0.1, 0.5, 1.0)
N, V = 37, 50


def parts(rows: int = V, taught: int = V) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    shapes = {
        "hidden": (N, 8),
        "weight": (rows, 8),
        "bias": (rows,),
        "teacher": (N, 6),
        "head": (taught, 6),
        "share": (N,),
    }
    return {name: torch.randn(shape, generator=g) for name, shape in shapes.items()}


def ours(p: dict[str, torch.Tensor], beta: float, temperature: float, chunk: int | None) -> list[torch.Tensor]:
    """Loss, divergences, and the gradients by hidden, weight and bias."""
    inputs = [p[name].clone().requires_grad_() for name in ("hidden", "weight", "bias")]
    settings = {"beta": beta, "temperature": temperature, "chunk": chunk}
    head = torch.nn.Linear(6, len(p["head"]), bias=False)
    head.weight.data = p["head"]
    loss, each = distillation_loss(*inputs[:2], p["teacher"], head, p["share"], bias=inputs[2], **settings)
    assert not each.requires_grad
    return [loss.detach(), each, *torch.autograd.grad(3 * loss, inputs)]


def plain(student: torch.Tensor, teacher: torch.Tensor, beta: float, temperature: float) -> torch.Tensor:
    """Of whole logits, (N,)."""
    s, t = (torch.log_softmax(x / temperature, 1) for x in (student, teacher))
    kl = lambda a, b: (a.exp() * (a - b)).sum(1)  # noqa: E731
    if beta in (0.0, 1.0):
        return kl(t, s) if beta == 0 else kl(s, t)
    mixture = (beta * t.exp() + (1 - beta) * s.exp()).log()
    return beta * kl(t, mixture) + (1 - beta) * kl(s, mixture)


def of_trl(student: torch.Tensor, teacher: torch.Tensor, beta: float, temperature: float) -> torch.Tensor:
    """The same by TRL's trainer, (N,)."""
    from trl.experimental.gkd.gkd_trainer import GKDTrainer

    settings = {"beta": beta, "temperature": temperature, "reduction": "sum"}
    rows = zip(student, teacher, strict=True)
    return torch.stack([GKDTrainer.generalized_jsd_loss(s[None, None], t[None, None], **settings) for s, t in rows])


@pytest.mark.parametrize("oracle", [plain, pytest.param(of_trl, marks=pytest.mark.slow)])
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_value_and_gradient_are_those_of_whole_logits(oracle, beta: float, temperature: float) -> None:
    if oracle is of_trl:
        pytest.importorskip("trl")
    p = parts()
    inputs = [p[name].double().requires_grad_() for name in ("hidden", "weight", "bias")]
    student, teacher = torch.nn.functional.linear(*inputs), (p["teacher"] @ p["head"].T).double()
    each = oracle(student, teacher, beta, temperature)
    loss = (each * p["share"].double()).sum()
    wanted = [x.float() for x in (loss.detach(), each.detach(), *torch.autograd.grad(3 * loss, inputs))]
    for chunk in (None, 5):
        assert_close(ours(p, beta, temperature, chunk), wanted, rtol=5e-5, atol=2e-5)


@pytest.mark.parametrize("beta", BETAS)
def test_equal_distributions_have_none(beta: float) -> None:
    log_p = torch.randn(4, V).log_softmax(1)
    divergence, gradient = generalized_jsd(log_p, log_p, beta)
    assert_close(divergence, torch.zeros(4), atol=1e-6, rtol=0)
    assert_close(gradient, torch.zeros(4, V), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("student", "teacher"), [(V + 6, V), (V, V + 6)])
def test_rows_that_one_of_them_lacks_are_left_out(student: int, teacher: int) -> None:
    """Models of a family are padded to sizes of their own."""
    p = parts(student, teacher)
    cut = p | {"weight": p["weight"][:V], "bias": p["bias"][:V], "head": p["head"][:V]}
    found, wanted = ours(p, 0.5, 1.0, 16), ours(cut, 0.5, 1.0, None)
    assert_close(found[:3], wanted[:3])
    assert_close([x[:V] for x in found[3:]], wanted[3:])
    assert not found[3][V:].any() and not found[4][V:].any()


def test_without_a_gradient_there_is_none() -> None:
    p = parts()
    with torch.no_grad():
        loss, _ = distillation_loss(p["hidden"], p["weight"], p["teacher"], lambda h: h @ p["head"].T, p["share"])
    assert not loss.requires_grad
