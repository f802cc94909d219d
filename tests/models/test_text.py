"""Text tower: padding, pooling, causality, the cheap last block, bad input."""

from alignlab.models.text import TextTower

import pytest
import torch

MODES = [(True, "last"), (False, "last"), (False, "first"), (False, "mean"), (True, "mean")]


def tower(causal: bool = True, pool: str = "last", **settings) -> TextTower:
    torch.manual_seed(0)
    return TextTower(vocab_size=30, context_length=10, width=32, depth=3, heads=4, causal=causal, pool=pool, **settings)


def texts(length: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    mask = torch.arange(length) < torch.tensor([[3], [8], [5], [1]])
    return torch.randint(1, 30, (4, length), generator=g), mask


def whole(net: TextTower, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Every block for all tokens, with explicit masks."""
    length = ids.shape[1]
    keep = mask[:, None, None].expand(-1, 1, length, -1)
    if net.causal:
        keep = keep & torch.ones(length, length, dtype=torch.bool).tril()
    x = net.token_embedding(ids) + net.pos_embed[:length]
    for block in net.blocks:
        x = block(x, keep)
    x = net.norm(x)
    if net.pool == "mean":
        return torch.stack([row[keep].mean(0) for row, keep in zip(x, mask, strict=True)])
    return torch.stack([row[keep][-1 if net.pool == "last" else 0] for row, keep in zip(x, mask, strict=True)])


@pytest.mark.parametrize(("causal", "pool"), MODES)
def test_pooling_equals_all_tokens_computed_and_masked(causal, pool):
    net, (ids, mask), direction = tower(causal, pool).double(), texts(), torch.randn(4, 32)
    gradients = []
    for output in (net(ids, mask), whole(net, ids, mask)):
        net.zero_grad()
        (output * direction).sum().backward()
        gradients.append({name: p.grad.clone() for name, p in net.named_parameters()})
    torch.testing.assert_close(net(ids, mask), whole(net, ids, mask), rtol=0, atol=1e-12)
    for name, gradient in gradients[0].items():
        assert gradient.abs().sum() > 0, name
        torch.testing.assert_close(
            gradient, gradients[1][name], rtol=1e-9, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize(("causal", "pool"), MODES)
def test_padding_changes_nothing(causal, pool):
    net, (ids, mask) = tower(causal, pool).double(), texts()
    padded, more = torch.zeros(4, 10, dtype=torch.int64), torch.zeros(4, 10, dtype=torch.bool)
    padded[:, :8], more[:, :8] = ids, mask
    other = padded.masked_fill(~more, 29)
    torch.testing.assert_close(net(padded, more), net(ids, mask), rtol=0, atol=1e-12)
    torch.testing.assert_close(net(other, more), net(ids, mask), rtol=0, atol=1e-12)
    alone = torch.cat([net(ids[i : i + 1, : int(n)], mask[i : i + 1, : int(n)]) for i, n in enumerate(mask.sum(1))])
    torch.testing.assert_close(alone, net(ids, mask), rtol=0, atol=1e-12)


def test_gradient_checkpointing_changes_nothing():
    ids, mask = texts()
    outputs = []
    for on in (False, True):
        net = tower(gradient_checkpointing=on)
        net(ids, mask).square().sum().backward()
        outputs.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
    assert torch.equal(*outputs)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="11 tokens exceeds"):
        tower()(torch.ones(1, 11, dtype=torch.int64), torch.ones(1, 11, dtype=torch.bool))
    with pytest.raises(ValueError, match="pool=first"):
        tower(causal=True, pool="first")
    with pytest.raises(ValueError, match="pool=max"):
        tower(pool="max")
