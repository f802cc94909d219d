"""Every shortcut of our ALBEF equals the plain way, in value and in gradient."""

import importlib.util
from pathlib import Path

from albef_pair import TINY, fixed_chances, load, make_reference, make_system, random_batch
from alignlab.losses.albef import Keys, hard_negatives, sameness, soft_contrastive
from alignlab.losses.language import distilled_cross_entropy
from alignlab.models.bert import FusionLayer, ImageState, attention_bias
from alignlab.models.momentum import FeatureQueue, MomentumTwin
from alignlab.types.pairs import PairIds

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

TOLERANCE = 2e-6
PICTURES, TOKENS, WIDTH, IMAGE_WIDTH = 4, 6, 16, 12


def fusion_layer() -> FusionLayer:
    torch.manual_seed(0)
    layer = FusionLayer(WIDTH, IMAGE_WIDTH, 4, mlp_ratio=2.0, dropout=0.0, attention_dropout=0.0, eps=1e-12)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    return layer


def assert_same_with_gradients(fast: Tensor, plain: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(fast, plain, atol=TOLERANCE, rtol=0)
    weight = torch.randn(plain.shape, generator=torch.Generator().manual_seed(9)) / plain.numel() ** 0.5
    grads = [torch.autograd.grad((y * weight).sum(), inputs, retain_graph=True) for y in (fast, plain)]
    for mine, other in zip(*grads, strict=True):
        torch.testing.assert_close(mine, other, atol=TOLERANCE * max(1.0, other.abs().max().item()), rtol=0)


def test_shared_keys_and_values_equal_a_projection_per_pass():
    cross = fusion_layer().cross_attention
    images = torch.randn(PICTURES, 5, IMAGE_WIDTH, requires_grad=True)
    x = torch.randn(4 * PICTURES, TOKENS, WIDTH, requires_grad=True)
    picture = torch.tensor([2, 0, 0, 1])
    fast = cross(x, cross.image_state(images), picture)
    passes = [images, images, images, images[picture]]
    plain = torch.cat([cross(rows, cross.image_state(image)) for rows, image in zip(x.chunk(4), passes, strict=True)])
    assert_same_with_gradients(fast, plain, [x, images, *cross.parameters()])


def test_one_picture_serves_many_texts():
    cross = fusion_layer().cross_attention
    state = cross.image_state(torch.randn(1, 5, IMAGE_WIDTH))
    x = torch.randn(7, TOKENS, WIDTH)
    expanded = ImageState(*(part.expand(7, -1, -1, -1) for part in state[:2]))
    torch.testing.assert_close(cross(x, state), cross(x, expanded), atol=TOLERANCE, rtol=0)


def test_cls_only_last_layer_equals_the_full_one():
    layer = fusion_layer()
    images = torch.randn(PICTURES, 5, IMAGE_WIDTH, requires_grad=True)
    x = torch.randn(2 * PICTURES, TOKENS, WIDTH, requires_grad=True)
    bias = attention_bias(torch.arange(TOKENS)[None] < torch.randint(2, TOKENS + 1, (2 * PICTURES, 1)), x.dtype)
    picture = torch.tensor([3, 3, 1, 0])
    state = layer.cross_attention.image_state(images)
    fast, plain = layer(x, bias, state, picture, 1), layer(x, bias, state, picture)[:, :1]
    assert_same_with_gradients(fast, plain, [x, images, *layer.parameters()])


def test_one_fusion_call_with_masked_positions_equals_separate_full_passes():
    generator = torch.Generator().manual_seed(2)
    batch = random_batch(TINY, PICTURES, TOKENS, generator)
    chances, _ = fixed_chances(TINY, batch, generator)
    system = make_system()
    load(system, make_reference())
    encoder, masked, negatives = system.net.encoder, chances.masked, chances.negatives
    images = encoder.encode_image(batch.image).tokens.detach().requires_grad_()
    hidden, plain = (encoder.text_tokens(ids, batch.mask).detach().requires_grad_() for ids in (masked.ids, batch.ids))

    fast = encoder.fuse(
        torch.cat([hidden, plain, plain[negatives.text], plain]),
        torch.cat([batch.mask, batch.mask, batch.mask[negatives.text], batch.mask]),
        encoder.image_states(images),
        picture=negatives.image,
        masked_rows=slice(0, PICTURES),
        masked_position=masked.position,
    )

    def full(text: Tensor, mask: Tensor, picture: Tensor) -> Tensor:
        x = text
        for layer in encoder.fusion:
            x = layer(x, attention_bias(mask, x.dtype), layer.cross_attention.image_state(picture))
        return x

    passes = (
        full(plain, batch.mask, images),
        full(plain[negatives.text], batch.mask[negatives.text], images),
        full(plain, batch.mask, images[negatives.image]),
    )
    inputs = [images, hidden, plain, *encoder.fusion.parameters()]
    assert_same_with_gradients(fast.matching, torch.cat([x[:, 0] for x in passes]), inputs[:1] + inputs[2:])
    everywhere = full(hidden, batch.mask, images)
    assert_same_with_gradients(fast.masked, everywhere.flatten(0, 1)[masked.position], inputs[:2] + inputs[3:])
    # The head: masked positions only, against all positions and labels of -100.
    labels = torch.full((batch.ids.numel(),), -100).index_put(
        (masked.position[masked.weight > 0],), masked.label[masked.weight > 0]
    )
    teacher = torch.randn(batch.ids.numel(), TINY.vocab_size, generator=generator)
    head = list(encoder.language_head.parameters())
    sparse = distilled_cross_entropy(
        encoder.language_logits(fast.masked), masked.label, masked.weight, teacher[masked.position], 0.4
    )
    logits = encoder.language_logits(everywhere.flatten(0, 1))
    soft = -(teacher.softmax(1) * logits.log_softmax(1)).sum(1)[labels != -100].mean()
    dense = 0.6 * F.cross_entropy(logits, labels, ignore_index=-100) + 0.4 * soft
    assert_same_with_gradients(sparse, dense, [*head, encoder.embeddings.word.weight, hidden, images])


@pytest.mark.parametrize("alpha", [0.0, 0.4])
@pytest.mark.parametrize("with_ids", [False, True])
def test_queue_without_concatenation_equals_one_hot_targets_over_all_columns(alpha: float, with_ids: bool):
    generator = torch.Generator().manual_seed(4)

    def unit(rows: int) -> Tensor:
        return F.normalize(torch.randn(rows, 8, generator=generator), dim=1)

    student, teacher, keys = unit(5).requires_grad_(), unit(5), Keys(unit(5), unit(11))
    temperature = torch.tensor([0.2], requires_grad=True)
    same, targets = None, torch.eye(5, 16)
    if with_ids:
        image, text = (torch.randint(4, (16,), generator=generator) for _ in range(2))
        same = sameness(*(PairIds(image[rows], text[rows]) for rows in (slice(5), slice(5), slice(5, 16))))
        targets = ((image[:5, None] == image) | (text[:5, None] == text)).float()
        targets = targets / targets.sum(1, keepdim=True)
    fast, within = soft_contrastive(student, keys, teacher, same, temperature, alpha)
    everything = torch.cat(keys)
    soft = alpha * (teacher @ everything.T / temperature.detach()).softmax(1) + (1 - alpha) * targets
    sim = student @ everything.T / temperature
    plain = -(sim.log_softmax(1) * soft).sum(1).mean()
    assert_same_with_gradients(fast, plain, [student, temperature])
    torch.testing.assert_close(within, sim[:, :5], atol=TOLERANCE, rtol=0)


def test_foreach_moving_average_equals_a_loop():
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3))
    twin = MomentumTwin(student)
    for parameter in student.parameters():
        nn.init.normal_(parameter)
    wanted = [0.9 * m + 0.1 * p for m, p in zip(twin.teacher.parameters(), student.parameters(), strict=True)]
    twin.update(student, 0.9)
    for mine, plain in zip(twin.teacher.parameters(), wanted, strict=True):
        torch.testing.assert_close(mine, plain.detach(), atol=2e-7, rtol=0)


def test_pushing_a_batch_equals_writing_row_by_row():
    queue, wanted, pointer = FeatureQueue(7, 2), {}, 0
    for step in range(5):
        rows, ids = torch.randn(3, 2), torch.arange(3) + 3 * step
        queue.push(rows, -rows, ids, ids + 100)
        for row, identity in zip(rows, ids, strict=True):
            wanted[pointer] = (row, identity)
            pointer = (pointer + 1) % 7
        assert queue.pointer.item() == pointer
        for slot, (row, identity) in wanted.items():
            assert torch.equal(queue.image[slot], row)
            assert torch.equal(queue.text[slot], -row)
            assert (queue.image_id[slot], queue.text_id[slot]) == (identity, identity + 100)


def test_negatives_follow_the_softmax_over_pairs_of_another_id():
    draws, pairs = 3000, 6
    torch.manual_seed(0)
    image_to_text, text_to_image = 1.5 * torch.randn(2, pairs, pairs)
    same = torch.eye(pairs, dtype=torch.bool)
    same[0, 3] = same[3, 0] = same[1, 2] = same[2, 1] = True
    counts = torch.zeros(2, pairs, pairs)
    for _ in range(draws):
        negatives = hard_negatives(image_to_text, text_to_image, same)
        counts[0, torch.arange(pairs), negatives.image] += 1
        counts[1, torch.arange(pairs), negatives.text] += 1
    assert (counts[:, same] == 0).all()
    freedom = (~same).sum().item() - pairs  # every row's counts sum up to the draws
    for drawn, similarity in zip(counts, (text_to_image, image_to_text), strict=True):
        expected = draws * similarity.masked_fill(same, -torch.inf).softmax(1)
        statistic = ((drawn - expected)[~same] ** 2 / expected[~same]).sum().item()
        assert statistic < freedom + 4 * (2 * freedom) ** 0.5  # mean and deviation of chi-square


def test_negatives_survive_similarities_whose_softmax_underflows():
    similarity = torch.full((4, 4), -1000.0).fill_diagonal_(1000.0)
    same = torch.eye(4, dtype=torch.bool)
    same[:2, :2] = True
    for _ in range(50):
        negatives = hard_negatives(similarity, similarity, same)
        assert not same[torch.arange(4), negatives.image].any()
        assert not same[torch.arange(4), negatives.text].any()
    assert negatives.valid.all()
    lonely = hard_negatives(similarity, similarity, torch.ones(4, 4, dtype=torch.bool))
    assert not lonely.valid.any()


@pytest.mark.slow
def test_floating_point_operations_at_the_published_size(monkeypatch):
    path = Path(__file__).parents[2] / "benchmarks" / "albef.py"
    monkeypatch.syspath_prepend(path.parent)
    spec = importlib.util.spec_from_file_location("benchmark_of_albef", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    assert benchmark.gflops_per_sample("plain") == pytest.approx(299.8, abs=0.05)
    assert benchmark.gflops_per_sample("alignlab") < 258
