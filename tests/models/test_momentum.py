"""MomentumTwin and FeatureQueue."""

from alignlab.models.momentum import FeatureQueue, MomentumTwin

import pytest
import torch
import torch.nn.functional as F
from torch import nn


def test_update_in_one_call_equals_a_loop():
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    twin = MomentumTwin(student)
    for p in student.parameters():
        nn.init.normal_(p)
    expected = [t * 0.9 + s * 0.1 for t, s in zip(twin.parameters(), student.parameters(), strict=True)]
    twin.update(student, 0.9)
    for ours, plain in zip(twin.parameters(), expected, strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-7, rtol=0)
        assert not ours.requires_grad
    twin.update(student, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), student.parameters(), strict=True))


@pytest.mark.parametrize("batches", [[4, 4, 4], [3, 5, 2], [25]])
def test_queue_holds_the_last_k_whatever_the_batch(batches):
    queue, all_features, all_ids = FeatureQueue(10, 2), [], []
    for count in batches:
        features, ids = F.normalize(torch.randn(count, 2), dim=1), torch.arange(count) + 100 * len(all_ids)
        queue.push(features, -features, ids, ids + 1)
        all_features.append(features)
        all_ids.append(ids)
    features, ids = torch.cat(all_features)[-10:], torch.cat(all_ids)[-10:]
    state = queue.state()
    order = torch.argsort(state.image_id)
    order = order[state.image_id[order] >= 0]
    assert torch.equal(state.image_id[order], ids) and torch.equal(state.text_id[order], ids + 1)
    assert torch.equal(state.image[order], features) and torch.equal(state.text[order], -features)
    assert queue.pointer.item() == sum(batches) % 10


def test_an_empty_queue_is_refused():
    with pytest.raises(ValueError, match="queue_size=0"):
        FeatureQueue(0, 2)
