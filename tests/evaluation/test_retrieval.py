"""Recall at k: by hand, under ties, chunked, and with bad sets."""

from alignlab.evaluation.retrieval import (
    Candidates,
    Reranking,
    lift,
    ranks_from_features,
    recall_at_k,
    recall_from_features,
)

import pytest
import torch


def random_set(num_images=12, captions=3, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.nn.functional.normalize(torch.randn(num_images, width, generator=generator), dim=-1)
    owner = torch.arange(num_images).repeat_interleave(captions)
    noise = torch.randn(len(owner), width, generator=generator)
    return torch.nn.functional.normalize(image[owner] + noise, dim=-1), image, owner


def test_by_hand_with_several_captions():
    # 3 pictures; picture 0 has texts 0, 1; picture 1 has text 2; picture 2 has texts 3, 4.
    owner = torch.tensor([0, 0, 1, 2, 2])
    similarity = torch.tensor(
        [
            [0.9, 0.1, 0.2],  # text 0: its picture 1st
            [0.3, 0.8, 0.5],  # text 1: 3rd
            [0.7, 0.6, 0.1],  # text 2: 2nd
            [0.2, 0.3, 0.4],  # text 3: 1st
            [0.5, 0.4, 0.3],  # text 4: 3rd
        ]
    )
    # Picture 0: text 0 first. Picture 1: 0.8 (text 1) > 0.6 (text 2): 2nd. Picture 2: 0.5 (text 1) > 0.4 (text 3): 2nd.
    result = recall_at_k(similarity, owner, ks=(1, 2, 3))
    expected = {
        "text_to_image_recall_at_1": 2 / 5,
        "text_to_image_recall_at_2": 3 / 5,
        "text_to_image_recall_at_3": 1.0,
        "image_to_text_recall_at_1": 1 / 3,
        "image_to_text_recall_at_2": 1.0,
        "image_to_text_recall_at_3": 1.0,
    }
    assert result == pytest.approx(expected, abs=1e-6)


def test_a_constant_model_gets_chance():
    owner = torch.arange(20).repeat_interleave(2)
    result = recall_at_k(torch.ones(40, 20), owner, ks=(1, 5))
    assert result["text_to_image_recall_at_1"] == pytest.approx(1 / 20, abs=1e-6)
    assert result["text_to_image_recall_at_5"] == pytest.approx(5 / 20, abs=1e-6)
    assert result["image_to_text_recall_at_1"] == pytest.approx(2 / 40, abs=1e-6)
    # none of 5 draws without return out of 40 is one of the 2 right ones: C(38, 5) / C(40, 5)
    assert result["image_to_text_recall_at_5"] == pytest.approx(1 - 35 * 34 / (40 * 39), abs=1e-6)


def test_nan_scores_get_chance():
    result = recall_at_k(torch.full((10, 10), torch.nan), torch.arange(10), ks=(1,))
    assert result["text_to_image_recall_at_1"] == pytest.approx(0.1, abs=1e-6)


def test_two_equal_captions_of_different_pictures_share_the_first_place():
    similarity = torch.tensor([[0.9, 0.1], [0.9, 0.2]])  # both texts fit picture 0 equally
    result = recall_at_k(similarity, torch.tensor([0, 1]), ks=(1,))
    assert result["image_to_text_recall_at_1"] == pytest.approx((0.5 + 1.0) / 2, abs=1e-6)


@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_chunks_equal_the_whole(chunk):
    text, image, owner = random_set()
    whole = recall_at_k(text @ image.T, owner)
    assert recall_from_features(text, image, owner, chunk=chunk) == pytest.approx(whole, abs=1e-6)
    assert 0.05 < whole["text_to_image_recall_at_1"] < 1


def test_recall_does_not_depend_on_the_order_of_the_set():
    text, image, owner = random_set()
    generator = torch.Generator().manual_seed(1)
    images, texts = torch.randperm(12, generator=generator), torch.randperm(36, generator=generator)
    place = images.argsort()
    shuffled = recall_from_features(text[texts], image[images], place[owner[texts]])
    assert shuffled == pytest.approx(recall_from_features(text, image, owner), abs=1e-6)


def test_lifted_candidates_stand_first_and_the_rest_keeps_its_order():
    similarity = torch.tensor([[0.9, 0.8, 0.7, 0.6]])
    lifted = lift(similarity, Candidates(torch.tensor([[0, 1]]), torch.tensor([[-7.0, -3.0]])))
    assert lifted.argsort(descending=True).tolist() == [[1, 0, 2, 3]]


def test_reranking_replaces_the_order_of_the_candidates_only():
    text, image, owner = random_set()
    pictures, texts = torch.arange(12), torch.arange(36)
    similarity = text @ image.T
    truth = (owner[:, None] == pictures).float()
    forth, back = similarity.topk(4).indices, similarity.T.topk(4).indices
    reranking = Reranking(
        Candidates(forth, truth[texts[:, None], forth]), Candidates(back, truth.T[pictures[:, None], back])
    )
    before = recall_from_features(text, image, owner, ks=(1, 4))
    after = recall_from_features(text, image, owner, ks=(1, 4), reranking=reranking, chunk=5)
    for way in ("text_to_image", "image_to_text"):  # a perfect matcher finds whatever is among the four, and no more
        assert after[f"{way}_recall_at_1"] == pytest.approx(before[f"{way}_recall_at_4"], abs=1e-6)
        assert after[f"{way}_recall_at_4"] == pytest.approx(before[f"{way}_recall_at_4"], abs=1e-6)


@pytest.mark.parametrize(
    ("owner", "message"),
    [
        ([0, 0, 0], "2 of 3 pictures have no text"),
        ([0, 1, 3], "picture 3"),
        ([0, 1, -1], "picture -1"),
        ([0, 1], "2 texts"),
    ],
)
def test_a_set_with_lonely_members_is_refused(owner, message):
    with pytest.raises(ValueError, match=message):
        recall_at_k(torch.rand(3, 3), torch.tensor(owner))


def test_ranks_by_hand_and_as_recall_counts_them():
    text, image, owner = random_set()
    forth, back = ranks_from_features(text, image, owner, chunk=5)
    score = text @ image.T
    for query, picture in enumerate(owner):
        assert forth[query] == 1 + (score[query] > score[query, picture]).sum()
    for picture in range(len(image)):
        assert back[picture] == 1 + (score[:, picture] > score[owner == picture, picture].max()).sum()
    recall = recall_from_features(text, image, owner)
    assert recall["text_to_image_recall_at_5"] == pytest.approx((forth <= 5).float().mean())
    assert recall["image_to_text_recall_at_1"] == pytest.approx((back == 1).float().mean())
    same = ranks_from_features(torch.ones(4, 2), torch.ones(2, 2), torch.tensor([0, 0, 1, 1]))
    assert same[0].tolist() == [1.5] * 4  # the first of one among two
    assert same[1].tolist() == pytest.approx([1 + 2 / 3] * 2)  # the first of two among four: 1 + 2 / (2 + 1)
    nothing = torch.full((2, 2), torch.nan)
    assert ranks_from_features(nothing, nothing, torch.tensor([0, 1]))[0].tolist() == [1.5, 1.5]
