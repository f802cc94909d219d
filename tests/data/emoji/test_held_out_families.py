"""Held-out near misses and arrangements: exact, of combinations that training never shows, the same for every seed."""

import itertools

from alignlab.data.emoji.held_out_families import arrangements, foil_rows
from alignlab.data.emoji.near_misses import FACTS, NearMisses
from alignlab.data.emoji.scene_pairs import EmojiScenePairs
from alignlab.data.emoji.scenes import EmojiScenes
from caption_reader import is_true

import numpy as np
import pytest


@pytest.fixture(scope="module")
def families():
    return NearMisses(EmojiScenes(48, seed=5), FACTS)


def concepts_of(scene):
    return {sprite.concept for sprite in scene.sprites}


def test_rows_are_exact_and_held_out(families):
    number = {concept.name: i for i, concept in enumerate(families.scenes.concepts)}
    for fact in FACTS:
        rows = foil_rows(families, fact, 60)
        assert len(rows) == 60 or (fact == "colours" and len(rows) > 20)
        for one, other in rows:
            for scene, told in itertools.product((one, other), repeat=2):
                assert is_true(told.caption, scene, 48) == (told is scene), (fact, one, other)
            assert concepts_of(one) == concepts_of(other)
            held_out = families.scenes.combinations.held_out
            assert all(held_out(number[a], number[b]) for a, b in itertools.combinations(concepts_of(one), 2))
    assert foil_rows(NearMisses(EmojiScenes(48, seed=6)), "relations", 5) == foil_rows(families, "relations", 5)


def test_no_caption_gives_itself_away(families):
    """Each word that tells is as often the true one as the foil's: who doesn't look at the picture gets chance."""
    counts = foil_rows(families, "counts", 400)
    assert 160 < sum("two " in one.caption for one, _ in counts) < 240
    sides = [
        one for one, _ in foil_rows(families, "relations", 400) if one.relations[0].name in ("left of", "right of")
    ]
    assert 0.4 < sum("left" in one.caption for one in sides) / len(sides) < 0.6


def test_arrangements_share_their_things(families):
    scenes = arrangements(families, 20)
    assert len(scenes) == 80 and len({frozenset(concepts_of(scene)) for scene in scenes}) == 20
    for start in range(0, 80, 4):
        four = scenes[start : start + 4]
        assert len({frozenset(concepts_of(scene)) for scene in four}) == len({s.background for s in four}) == 1
        for scene, told in itertools.product(four, repeat=2):
            assert is_true(told.caption, scene, 48) == (told is scene), (told.caption, scene)


def test_the_source_offers_them():
    source = EmojiScenePairs(24, num_val=40, num_val_foils=3)
    sets = source.foil_sets()
    assert list(sets) == ["relations", "which_is_where", "counts", "backgrounds"]
    assert all(len(rows.captions) == 3 and rows.pictures == 2 for rows in sets.values())
    picture = sets["counts"].picture(1, 0)
    assert picture.shape == (24, 24, 3) and not np.array_equal(picture, sets["counts"].picture(1, 1))
    assert (
        source.num_pictures("arrangements") == 40
        and len({source.captions_of(i, "arrangements")[0] for i in range(40)}) == 40
    )
    assert source.picture(3, "arrangements").shape == (24, 24, 3)
    assert "counts" not in EmojiScenePairs(24, max_sprites=2, num_val_foils=3).foil_sets()
    assert list(EmojiScenePairs(24, num_val_foils=2, facts=["sizes"]).foil_sets())[-1] == "sizes"
