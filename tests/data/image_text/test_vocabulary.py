"""Tokenizers: the same in every process, saved and loaded, long captions cut and counted."""

import hashlib
import json
import logging
import subprocess
import sys

from alignlab.data.emoji.pictures import EmojiPairs
from alignlab.data.emoji.scene_pairs import EmojiScenePairs
from alignlab.data.emoji.scenes import EmojiScenes
from alignlab.data.image_text.vocabulary import (
    CaptionEncoder,
    clean_caption,
    load_tokenizer,
    text_id,
    train_tokenizer,
    vocabulary_of,
    with_words_of,
)
from alignlab.evaluation.words import tokens_of

import pytest
from tokenizers import normalizers

TEXTS = ["a red apple above a dog", "two dogs left of a house", "a house, blue background"]


def test_words_are_whole_and_case_does_not_matter():
    tokenizer = train_tokenizer(TEXTS)
    assert tokenizer.tokenize("Two DOGS above a house") == ["two", "dogs", "above", "a", "house"]
    assert tokenizer.tokenize("a zebra") == ["a", "[UNK]"]
    assert (
        len(
            {
                tokenizer.pad_token_id,
                tokenizer.cls_token_id,
                tokenizer.sep_token_id,
                tokenizer.mask_token_id,
                tokenizer.unk_token_id,
            }
        )
        == 5
    )


@pytest.mark.parametrize("kind", ["word", "wordpiece"])
def test_strings_of_control_tokens_in_captions_are_text(kind):
    """ "[MASK]" in a caption became the hidden word that the model is to guess, "[PAD]" a gap."""
    encode = CaptionEncoder(train_tokenizer([*TEXTS, "[mask] [pad] [sep]"], kind, 200), 24, append_sep=True)
    special = encode.tokenizer.all_special_ids
    for caption in ("a [MASK] dog", "[PAD] [SEP] a [CLS] dog [UNK]"):
        (row,), (mask,) = encode([caption])
        assert mask.all() and [id for id in row.tolist() if id in special and id != encode.tokenizer.unk_token_id] == [
            encode.vocabulary.cls_id,
            encode.vocabulary.sep_id,
        ]
    ids, first = encode(["a [MASK] dog"])[0][0], 2
    chosen = tokens_of(encode.tokenizer, "a [MASK] dog", (first, first + 6), ids)
    assert chosen.nonzero().flatten().tolist() == [2, 3, 4], "its own pieces are found"


def test_new_words_get_ids_behind_the_others(tmp_path):
    train_tokenizer(TEXTS).save_pretrained(tmp_path)
    old = load_tokenizer(str(tmp_path))
    new = with_words_of(old, ["How many dogs, Zebra?", "many a zebra"])
    assert list(new.get_vocab().items() - old.get_vocab().items()) != [] and with_words_of(old, TEXTS) is old
    assert {word: new.get_vocab()[word] - len(old) for word in ("how", "many", "zebra", "?")} == {
        "how": 0, "many": 1, "zebra": 2, "?": 3,
    }  # fmt: skip
    assert all(new.get_vocab()[word] == number for word, number in old.get_vocab().items())
    text = "how many [MASK] red dogs"
    assert [x for x in new(text).input_ids if x < len(old)] == [x for x in old(text).input_ids if x != old.unk_token_id]
    assert vocabulary_of(new)[1:] == vocabulary_of(old)[1:] and vocabulary_of(new).size == len(old) + 4
    pieces = train_tokenizer(TEXTS, "wordpiece")
    assert with_words_of(pieces, ["how many zebras"]) is pieces


@pytest.mark.parametrize("kind", ["word", "wordpiece"])
def test_round_trip_through_a_folder(tmp_path, kind):
    tokenizer = train_tokenizer(TEXTS, kind, 200)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    assert vocabulary_of(loaded) == vocabulary_of(tokenizer)
    one, other = CaptionEncoder(tokenizer, 12)(TEXTS), CaptionEncoder(loaded, 12)(TEXTS)
    assert (one[0] == other[0]).all() and (one[1] == other[1]).all()


def test_training_is_deterministic_across_processes():
    """Each rank trains its own copy: hash tables with random seeds inside the library must not show."""
    texts = list(EmojiScenes(16).captions(300))
    code = (
        "import sys, json\nfrom alignlab.data.image_text.vocabulary import train_tokenizer\ntexts = json.load(sys.stdin)\n"
        "print([sorted(train_tokenizer(texts, kind, 400).get_vocab().items()) for kind in ('word', 'wordpiece')])"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, input=json.dumps(texts)
    )
    assert (
        other.stdout
        == f"{[sorted(train_tokenizer(texts, kind, 400).get_vocab().items()) for kind in ('word', 'wordpiece')]}\n"
    )


def test_word_pieces_spell_unknown_words():
    tokenizer = train_tokenizer(TEXTS, "wordpiece", 120)
    assert tokenizer.tokenize("doge")[0] == "dog" and "[UNK]" not in tokenizer.tokenize("doge")
    ids = tokenizer.encode("two dogs, background", add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ,", ",") == "two dogs, background"


def test_template_padding_and_mask():
    tokenizer = train_tokenizer(TEXTS)
    ids, mask = CaptionEncoder(tokenizer, 12)(["a dog", "a house above a dog"])
    assert ids.shape == (2, 6) and mask.sum(1).tolist() == [3, 6]
    assert (ids[:, 0] == tokenizer.cls_token_id).all() and (ids[0, 3:] == tokenizer.pad_token_id).all()
    assert not (ids == tokenizer.sep_token_id).any()
    ids, mask = CaptionEncoder(tokenizer, 12, append_sep=True, pad_to_multiple=4)(["a dog"])
    assert ids.shape == (1, 4) and ids[0, 3] == tokenizer.sep_token_id and mask.all()


def test_long_captions_are_cut_and_said(caplog):
    encode = CaptionEncoder(train_tokenizer(TEXTS), 5, append_sep=True)
    ids, mask = encode(["a dog", "a red apple above a dog"])
    assert ids.shape == (2, 5) and mask[1].all() and ids[1, -1] == encode.vocabulary.sep_id
    with caplog.at_level(logging.WARNING):
        assert encode.warn_of_losses(TEXTS).cut == 3
        assert encode.warn_of_losses(["a dog"]).cut == 0
    assert len(caplog.records) == 1 and "3 of 3 captions (100.0 %) are longer than context_length=5" in caplog.text


def test_windows_of_long_captions():
    encode = CaptionEncoder(train_tokenizer(TEXTS), 5, append_sep=True)  # room for 3 ids
    captions = ["a red apple above a dog"] * 4 + ["a dog"]
    ids, mask = encode(captions, [0.0, 0.3, 0.6, 0.99, 0.99])
    words = encode.tokenizer.batch_decode(ids, skip_special_tokens=True)
    assert words == ["a red apple", "red apple above", "apple above a", "above a dog", "a dog"]
    assert mask.sum(1).tolist() == [5, 5, 5, 5, 4] and (encode(captions)[0][0] == ids[0]).all()


def test_a_trained_tokenizer_strips_nothing():
    words = ["ハーブ", "ハープ", "piñata", "pinata", "إوَزة", "إوزة", "cocô", "coco"]
    for kind in ("word", "wordpiece"):
        tokenizer = train_tokenizer(words, kind, 200)
        assert len({tuple(tokenizer.encode(word)) for word in words}) == len(words)
        assert tokenizer.encode("pin\u0303ata PIÑATA") == tokenizer.encode(
            "piñata pi\u00f1ata"
        )  # however it is composed


def test_every_caption_of_the_emoji_has_ids_of_its_own():
    for language in ("en", "ja", "zh"):
        source = EmojiPairs(24, language)
        texts = [*source.vocabulary_texts(), *source.held_out_texts()]
        tokenizer = train_tokenizer(source.vocabulary_texts(), "wordpiece", 2048, source.held_out_texts())
        assert len(tokenizer) <= 2048
        assert CaptionEncoder(tokenizer, 100).warn_of_losses(texts) == (0, 0, 0)


def test_ids_of_the_default_scenes_are_those_of_the_first_release():
    source = EmojiScenePairs(48, num_train=1000)
    ids = sorted(train_tokenizer(source.vocabulary_texts()).get_vocab().items())
    assert hashlib.md5(json.dumps(ids).encode()).hexdigest() == "09e007b4f943df42fcf1702697727840"


def test_chinese_characters_take_one_id_and_too_many_letters_are_refused():
    characters = [chr(0x4E00 + i) for i in range(100)]
    assert len(train_tokenizer(["ab", *characters], "wordpiece", 109)) == 109  # 5 special, 102 letters, ##a and ##b
    with pytest.raises(ValueError, match=r"vocab_size is 108; the captions' 102 letters need 109"):
        train_tokenizer(["ab", *characters], "wordpiece", 108)


def test_captions_that_collide_are_counted_and_said(caplog):
    encode = CaptionEncoder(train_tokenizer(TEXTS), 6)
    captions = ["a dog", "A  dog", "a cat", "a bird", "two dogs left of a house", "two dogs left of a dog"]
    assert encode.warn_of_losses(captions) == (2, 2, 4)
    assert "2 of 6 captions have words that the tokenizer doesn't know ([UNK]), such as 'a cat'" in caplog.text
    assert "4 of 5 different captions have the same ids as another one" in caplog.text
    assert "such as 'a cat' and 'a bird'" in caplog.text
    stripping = train_tokenizer(["pinata", "piñata"])
    stripping.backend_tokenizer.normalizer = normalizers.BertNormalizer()
    assert CaptionEncoder(stripping, 6).warn_of_losses(["pinata", "piñata"]).equal == 2


def test_bad_names_and_settings(tmp_path):
    with pytest.raises(ValueError, match=r"tokenizer='.*' can't be loaded"):
        load_tokenizer(str(tmp_path))
    with pytest.raises(ValueError, match=r"tokenizer_kind is 'letters'"):
        train_tokenizer(TEXTS, "letters")
    with pytest.raises(ValueError, match=r"context_length is 2"):
        CaptionEncoder(train_tokenizer(TEXTS), 2)


def test_cleaning_and_text_ids():
    assert (
        clean_caption("A well-known <person>, near the sea/shore: 'wow'!")
        == "a well known person near the sea shore wow"
    )
    assert clean_caption("a b c d", max_words=2) == "a b"
    assert text_id("A  dog") == text_id("a dog ") != text_id("a cat") and 0 <= text_id("x") < 2**63
