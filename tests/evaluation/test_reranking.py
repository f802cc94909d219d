"""Re-ranking: equal to brute force, keys and values projected once a picture, crops, options, two ranks."""

from alignlab.evaluation.encoding import EncodedSet, encode_retrieval_set
from alignlab.evaluation.reranking import nearest, rerank
from alignlab.evaluation.retrieval import recall_at_k, recall_from_features
from alignlab.types.pairs import ImageEncoding, RetrievalBatch, TextEncoding

import pytest
import torch
from torch import nn


class ScriptedNet(nn.Module):
    """The interface of a net that matches: two towers that average, a matcher that is a fixed function of both sides."""

    def __init__(self, width=5):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.words = nn.Parameter(torch.randn(30, width, generator=generator))
        self.pixels = nn.Parameter(torch.randn(12, width, generator=generator))
        self.mix = nn.Parameter(torch.randn(width, width, generator=generator))
        self.projections, self.passes = [], []

    def encode_image(self, image):
        tokens = image.flatten(2).transpose(1, 2) @ self.pixels[:3]
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1)
        return ImageEncoding(nn.functional.normalize(tokens[:, 0], dim=-1), tokens)

    def encode_text(self, ids, mask):
        tokens = self.words[ids]
        mean = (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return TextEncoding(nn.functional.normalize(mean, dim=-1), tokens)

    def image_states(self, tokens):
        self.projections.append(tokens[0])
        return [tokens @ self.mix]

    def match(self, states, text_tokens, text_mask):
        (state,) = states
        assert len(state) == 1
        self.passes.append(text_tokens.shape[:2])
        attention = (text_tokens @ state[0].T).tanh() * text_mask[..., None]
        score = attention.sum((1, 2))
        return torch.stack([0.3 * score.cos(), score], 1)


def batches(num_images=7, captions=2, size=3, seed=0, index=None):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(num_images, 3, 2, 2, generator=generator)
    mask = torch.arange(6) < torch.randint(1, 6, (num_images, captions, 1), generator=generator)
    ids = torch.randint(1, 30, (num_images, captions, 6), generator=generator) * mask
    for part in torch.arange(num_images).split(size) if index is None else index.split(size):
        own = part.repeat_interleave(captions)
        yield RetrievalBatch(image[part], ids[part].flatten(0, 1), mask[part].flatten(0, 1), own, part)


def kept(encoded: EncodedSet, name: str) -> torch.Tensor:
    value = getattr(encoded, name)  # tokens at padding are whatever the net makes of it
    return value * encoded.text_mask[..., None] if name == "text_tokens" else value


def brute_force(net, encoded: EncodedSet, score):
    table = torch.zeros(len(encoded.text_features), len(encoded.image_features))
    for i, tokens in enumerate(encoded.image_tokens):
        for n, (text, mask) in enumerate(zip(encoded.text_tokens, encoded.text_mask, strict=True)):
            logits = net.match(net.image_states(tokens[None]), text[None], mask[None])[0]
            table[n, i] = logits[1] if score == "match_logit" else logits[1] - logits[0]
    return table.detach()


@pytest.mark.parametrize("score", ["log_odds", "match_logit"])
@pytest.mark.parametrize("texts_per_pass", [3, 256])
def test_all_candidates_equal_brute_force(score, texts_per_pass):
    net = ScriptedNet()
    encoded = encode_retrieval_set(net, batches(), keep_tokens=True)
    table = brute_force(net, encoded, score)
    reranking = rerank(net, encoded, top_k=100, score=score, texts_per_pass=texts_per_pass)
    forth, back = reranking
    torch.testing.assert_close(table.gather(1, forth.index), forth.score, atol=1e-5, rtol=0)
    torch.testing.assert_close(table.T.gather(1, back.index), back.score, atol=1e-5, rtol=0)
    found = recall_from_features(
        encoded.text_features, encoded.image_features, encoded.image_of_text, reranking=reranking, chunk=4
    )
    assert found == pytest.approx(recall_at_k(table, encoded.image_of_text), abs=1e-6)


def test_top_k_scores_only_the_union_and_adds_the_similarity():
    net = ScriptedNet()
    encoded = encode_retrieval_set(net, batches(), keep_tokens=True)
    table = brute_force(net, encoded, "log_odds")
    similarity = (encoded.text_features @ encoded.image_features.T).detach()
    net.projections.clear(), net.passes.clear()
    forth, back = rerank(net, encoded, top_k=2, similarity_weight=1.0)
    union = torch.zeros_like(table, dtype=torch.bool)
    union.scatter_(1, similarity.topk(2).indices, True)
    union.T.scatter_(1, similarity.T.topk(2).indices, True)
    assert sum(texts for texts, _ in net.passes) == union.sum()
    total = table + similarity
    torch.testing.assert_close(total.gather(1, forth.index), forth.score, atol=1e-5, rtol=0)
    torch.testing.assert_close(total.T.gather(1, back.index), back.score, atol=1e-5, rtol=0)


def test_a_picture_is_projected_once_whatever_the_number_of_texts_and_passes():
    net = ScriptedNet()
    encoded = encode_retrieval_set(net, batches(), keep_tokens=True)
    rerank(net, encoded, top_k=14, texts_per_pass=4)
    assert len(net.projections) == 7
    for seen, tokens in zip(net.projections, encoded.image_tokens, strict=True):
        assert torch.equal(seen, tokens)
    assert all(texts <= 4 for texts, _ in net.passes) and len(net.passes) == 7 * 4


def test_padding_is_cropped_by_pass():
    net = ScriptedNet()
    encoded = encode_retrieval_set(net, batches(), keep_tokens=True)
    lengths = encoded.text_mask.sum(1).sort().values
    assert encoded.text_mask.shape[1] == lengths.max() < 6
    rerank(net, encoded, top_k=14, texts_per_pass=7)
    assert {length for _, length in net.passes} == {int(lengths[6]), int(lengths[13])}


@pytest.mark.parametrize("on_host", [False, True])
def test_the_order_and_size_of_batches_change_nothing(on_host):
    net = ScriptedNet()
    expected = encode_retrieval_set(net, batches(), keep_tokens=True)
    order = torch.tensor([4, 0, 6, 2, 1, 5, 3])
    found = encode_retrieval_set(net, batches(size=2, index=order), keep_tokens=True, tokens_on_host=on_host)
    for name in EncodedSet._fields:
        torch.testing.assert_close(kept(expected, name), kept(found, name), atol=1e-6, rtol=0, msg=name)


def test_a_part_of_the_set_is_a_set():
    encoded = encode_retrieval_set(ScriptedNet(), batches(index=torch.tensor([5, 1, 3, 0])), limit_batches=1)
    assert encoded.image_index.tolist() == [1, 3, 5]
    assert encoded.image_of_text.tolist() == [0, 0, 1, 1, 2, 2]


def test_nearest_in_chunks():
    query, candidate = torch.randn(9, 4), torch.randn(5, 4)
    whole, chunked = nearest(query, candidate, 3), nearest(query, candidate, 3, chunk=2)
    assert torch.equal(whole.index, chunked.index)


def test_bad_sets_are_refused():
    net = ScriptedNet()
    with pytest.raises(ValueError, match="empty"):
        encode_retrieval_set(net, [])
    with pytest.raises(ValueError, match="twice"):
        encode_retrieval_set(net, batches(index=torch.tensor([0, 1, 2, 1])))
    stray = [batch._replace(image_of_text=batch.image_of_text + 1) for batch in batches()]
    with pytest.raises(ValueError, match="not in the set"):
        encode_retrieval_set(net, stray)
    encoded = encode_retrieval_set(net, batches())
    with pytest.raises(ValueError, match="keep_tokens"):
        rerank(net, encoded, top_k=2)
    with pytest.raises(ValueError, match="top_k=0"):
        rerank(net, encode_retrieval_set(net, batches(), keep_tokens=True), top_k=0)


def _one_rank(rank: int, world_size: int, folder: str, num_images: int) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    net = ScriptedNet()
    encoded = encode_retrieval_set(
        net, batches(num_images, index=torch.arange(num_images)[rank::world_size]), keep_tokens=True
    )
    torch.save((encoded, rerank(net, encoded, top_k=3), len(net.projections)), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.distributed
@pytest.mark.parametrize("num_images", [7, 1])
def test_two_ranks_equal_one(tmp_path, num_images):
    net = ScriptedNet()
    encoded = encode_retrieval_set(net, batches(num_images), keep_tokens=True)
    expected = rerank(net, encoded, top_k=3)
    # Forked: a test module cannot be imported by name in a fresh process.
    torch.multiprocessing.start_processes(_one_rank, (2, str(tmp_path), num_images), nprocs=2, start_method="fork")
    projected = 0
    for rank in range(2):
        shared, found, count = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        for name in ("image_features", "text_features", "image_of_text", "text_tokens", "text_ids", "text_mask"):
            torch.testing.assert_close(kept(shared, name), kept(encoded, name), atol=1e-6, rtol=0, msg=name)
        for a, b in zip(expected, found, strict=True):
            assert torch.equal(a.index, b.index)
            torch.testing.assert_close(a.score, b.score, atol=1e-5, rtol=0)
        projected += count
    assert projected == num_images
