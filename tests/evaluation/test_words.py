"""Words of captions and their tokens."""

from alignlab.evaluation.words import content_words, tokens_of

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "ele", "##phant", "left", "of", "bee", "##s", "two"]


@pytest.fixture
def tokenizer():
    inner = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]")


def test_content_words():
    caption = "An Elephant is left of two bees, elephant!"
    assert [caption[a:b] for a, b in content_words(caption)] == ["Elephant", "bees"]
    assert [caption[a:b] for a, b in content_words(caption, 1)] == ["Elephant"]
    assert content_words("on the left") == [(0, 2), (3, 6), (7, 11)]
    assert content_words("") == []


def test_tokens_of_a_word_of_several_pieces(tokenizer):
    caption = "An elephant left of two bees"
    inside = tokenizer(caption, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([2, *inside, 3, 0])
    word = caption.index("elephant"), caption.index("elephant") + 8
    assert tokens_of(tokenizer, caption, word, ids).nonzero().flatten().tolist() == [2, 3]
    bees = caption.index("bees"), len(caption)
    assert tokens_of(tokenizer, caption, bees, ids).nonzero().flatten().tolist() == [7, 8]
    assert not tokens_of(tokenizer, caption, bees, ids[:6]).any()  # the caption was cut before it
    half_cut = torch.cat([ids[:8], torch.tensor([3])])  # cut inside it, with a separator at the end
    assert tokens_of(tokenizer, caption, bees, half_cut).nonzero().flatten().tolist() == [7]
