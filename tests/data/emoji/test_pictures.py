"""Emoji with names: languages, several names, concepts on one side of the split."""

from alignlab.data.emoji.names import languages, named_drawings
from alignlab.data.emoji.pictures import EmojiPairs

import numpy as np
import pytest


@pytest.fixture(scope="module")
def emoji():
    return EmojiPairs(32, seed=1)


def test_variants_of_a_concept_stay_together(emoji):
    assert not {d.concept for d in emoji.train} & {d.concept for d in emoji.held_out}
    assert not {d.drawing for d in emoji.train} & {d.drawing for d in emoji.held_out}
    share = len({d.concept for d in emoji.held_out}) / len({d.concept for d in named_drawings()})
    assert 0.09 < share < 0.15
    concept_of = {d.drawing: d.concept for d in named_drawings()}
    for group in (
        ("1f9d1-200d-1f373", "1f469-1f3fd-200d-1f373", "1f468-200d-1f373"),  # cooks
        ("1f468", "1f469-1f3ff", "1f9d1-200d-1f9b0", "1f469-1f3fb-200d-1f9b1"),  # persons
        ("1f46d", "1f46b", "1f9d1-200d-1f91d-200d-1f9d1", "1f468-1f3fb-200d-1f91d-200d-1f468-1f3fc"),  # holding hands
        ("1f408", "1f431"),  # cat and cat face
        ("1f385", "1f936"),
        ("1f3c3", "1f3c3-200d-2640-fe0f-200d-27a1-fe0f"),
    ):
        assert len({concept_of[drawing] for drawing in group}) == 1, group
    assert concept_of["1f415"] != concept_of["1f408"]


def test_several_names_for_one_picture(emoji):
    named = {d.drawing: d.names for d in named_drawings()}
    assert named["1f44d"] == ("thumbs up", "thumbsup", "+1")
    assert named["1f469-1f3fd-200d-1f373"] == ("woman cook medium skin tone",)
    assert sum(len(emoji.captions_of(i, "val")) > 1 for i in range(emoji.num_pictures("val"))) > 20
    assert not any("_" in name or ":" in name for names in named.values() for name in names)


def test_languages():
    assert {"en", "zh", "de", "fr", "ja"} <= set(languages())
    for language, name in (("zh", "狗"), ("de", "hund"), ("fr", "chien")):
        named = {d.drawing: d for d in named_drawings(language)}
        assert named["1f415"].names == (name,)
        assert named["1f415"].concept == "dog"  # the split is the same in every language
    with pytest.raises(ValueError, match=r"language is 'tlh'; there are names in ar, de, en"):
        named_drawings("tlh")


def test_training_pairs_depend_on_seed_and_number_alone(emoji):
    again = EmojiPairs(32, seed=1)
    for serial in (emoji.num_train + 5, 3, emoji.num_train + 5):
        one, other = emoji.train_pair(serial), again.train_pair(serial)
        assert np.array_equal(one.picture, other.picture) and one[1:] == other[1:]
    assert not np.array_equal(EmojiPairs(32, seed=2).train_pair(3).picture, emoji.train_pair(3).picture)


def test_an_epoch_shows_every_drawing_once(emoji):
    small = EmojiPairs(16, seed=1)
    small._compose = lambda *arguments, **settings: None
    epochs = [
        [small.train_pair(epoch * small.num_train + i).image_id for i in range(small.num_train)] for epoch in range(2)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(small.num_train)) and epochs[0] != epochs[1]


def test_held_out_pictures_and_classes(emoji):
    sets = emoji.zero_shot_pictures()["unseen"]
    assert len(sets.names) == len(set(sets.names)) == emoji.num_pictures("val") > 100
    assert len(sets.labels) == len(emoji.held_out) and set(sets.labels) == set(range(len(sets.names)))
    assert sets.prompts[0][:2] == [sets.names[0], f"a picture of {sets.names[0]}"]
    assert np.array_equal(sets.picture(4), sets.picture(4)) and sets.picture(4).shape == (32, 32, 3)
    assert np.array_equal(emoji.picture(4, "val"), emoji.picture(4, "val"))


def test_bad_settings(emoji):
    with pytest.raises(ValueError, match=r"held_out_share is 0"):
        EmojiPairs(32, held_out_share=0)
    with pytest.raises(ValueError, match="split 'test'"):
        emoji.picture(0, "test")
