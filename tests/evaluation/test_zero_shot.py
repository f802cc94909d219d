"""Zero-shot classification by hand."""

from alignlab.evaluation.zero_shot import class_embeddings, classification_scores, encode_labelled
from alignlab.types.pairs import ClassificationBatch, ClassPrompts, ImageEncoding, TextEncoding

import pytest
import torch


def test_class_embedding_is_the_normalised_mean_of_normalised_prompts():
    table = torch.tensor([[9.0, 9.0], [2.0, 0.0], [0.0, 5.0], [3.0, 4.0]])

    def encode_text(ids, mask):
        assert ids.shape[1] == 1  # the unused second column was cropped
        return TextEncoding(table[ids[:, 0]], None)

    ids = torch.tensor([[[1, 0], [2, 0]], [[3, 0], [3, 0]]])  # two classes, two prompts each
    prompts = ClassPrompts(["a", "b"], ids, ids > 0)
    for texts_per_pass in (1, 3, 100):
        found = class_embeddings(encode_text, prompts, texts_per_pass=texts_per_pass)
        torch.testing.assert_close(found, torch.tensor([[0.5**0.5, 0.5**0.5], [0.6, 0.8]]), atol=1e-6, rtol=0)


def test_accuracy_and_recall_by_hand():
    score = torch.tensor([[3.0, 2, 1], [1, 3, 2], [3, 2, 1], [2, 3, 1]])
    found = classification_scores(score, torch.tensor([0, 0, 0, 1]), ks=(1, 2, 5))
    # right at once: pictures 0, 2 of class 0 and 3 of class 1; class 2 does not occur; 5 >= 3 classes says nothing
    expected = {"accuracy_at_1": 3 / 4, "accuracy_at_2": 3 / 4, "mean_per_class_recall": (2 / 3 + 1) / 2}
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_constant_model_gets_chance():
    found = classification_scores(torch.zeros(8, 10), torch.zeros(8, dtype=torch.int64))
    assert found == pytest.approx({"accuracy_at_1": 0.1, "accuracy_at_5": 0.5, "mean_per_class_recall": 0.1}, abs=1e-6)


def test_a_label_without_class_is_refused():
    with pytest.raises(ValueError, match="label 3"):
        classification_scores(torch.zeros(2, 3), torch.tensor([0, 3]))


def test_encode_labelled():
    data = [ClassificationBatch(torch.randn(2, 3, 1, 1), torch.tensor([n, n])) for n in range(3)]
    features, label = encode_labelled(lambda image: ImageEncoding(image[:, :, 0, 0], None), data)
    assert label.tolist() == [0, 0, 1, 1, 2, 2]
    torch.testing.assert_close(features, torch.cat([batch.image for batch in data])[:, :, 0, 0])
    with pytest.raises(ValueError, match="empty"):
        encode_labelled(lambda image: None, [])
