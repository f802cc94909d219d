"""LoRA on towers: nothing at the start, alone in learning, also where a block computes one token only; merged it is the same."""

from alignlab.models.low_rank import add_low_rank, merge_low_rank
from alignlab.models.released.sizes import untrained
from tiny_released import SIZES

import pytest
import torch
from torch.testing import assert_close


def test_it_begins_as_nothing_learns_alone_and_is_merged() -> None:
    torch.manual_seed(0)
    net = untrained(SIZES, vocab_size=SIZES.vocab_size)
    names = set(net.state_dict())
    inputs = torch.randn(3, 3, 32, 32), torch.randint(512, (3, 9)), torch.ones(3, 9, dtype=torch.bool)
    before = net(*inputs)
    assert add_low_rank([net.vision, net.text], rank=2, alpha=4.0) == 4 * 5
    after = net(*inputs)
    assert_close(after.image, before.image, rtol=0, atol=0)
    learning = {name for name, p in net.named_parameters() if p.requires_grad}
    assert all(".parametrizations.weight.0." in name or not name.startswith(("vision.", "text.")) for name in learning)
    assert {"image_projection.weight", "text_projection.weight", "logit_scale"} < learning

    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 1.0)
    (after.image @ after.text.T).diagonal().sum().backward()
    ups = [name for name in learning if name.endswith("0.up")]
    assert len(ups) == 20 and all(net.get_parameter(name).grad.abs().sum() > 0 for name in ups)
    optimizer.step()
    trained = net(*inputs)
    assert not trained.image.allclose(before.image, atol=1e-4)
    merged = merge_low_rank(net)
    assert set(merged.state_dict()) == names
    assert_close(merged(*inputs).image, trained.image, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("rank", "targets", "message"), [(0, ("qkv",), "lora_rank is 0"), (2, ("key",), "called key")])
def test_what_cannot_be(rank: int, targets: tuple, message: str) -> None:
    net = untrained(SIZES, vocab_size=SIZES.vocab_size)
    with pytest.raises(ValueError, match=message):
        add_low_rank([net.text], rank, 4.0, targets)
