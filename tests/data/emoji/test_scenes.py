"""Scenes: functions of their index, exact boxes, true captions, combinations kept apart."""

import itertools
import re

from alignlab.data.emoji.captions import PHRASES
from alignlab.data.emoji.concepts import concepts, plural
from alignlab.data.emoji.drawings import MIN_ALPHA, PatchBank, paste
from alignlab.data.emoji.scenes import EmojiScenes

import numpy as np
import pytest

NUM = 1500


@pytest.fixture(scope="module")
def scenes():
    return EmojiScenes(48, seed=3)


@pytest.fixture(scope="module")
def training(scenes):
    return [scenes.scene(index) for index in range(NUM)]


@pytest.fixture(scope="module")
def held_out(scenes):
    return [scenes.scene(index, "val") for index in range(500)]


def concept_set(scene):
    return frozenset(sprite.concept for sprite in scene.sprites)


def test_a_scene_depends_on_seed_split_and_index_alone(scenes, training):
    again = EmojiScenes(48, seed=3)
    for index in (700, 3, 41, 3):  # another instance, another order
        assert again.scene(index) == training[index]
        assert np.array_equal(again.render(again.scene(index)), scenes.render(training[index]))
    assert again.caption(5) == training[5].caption
    assert EmojiScenes(48, seed=4).scene(3) != training[3]
    assert scenes.scene(3, "val") != training[3]


def test_held_out_scenes_are_the_same_for_every_seed(held_out):
    assert [EmojiScenes(48, seed=9).scene(index, "val") for index in range(20)] == held_out[:20]


def test_the_arrangement_is_the_same_at_every_size(training):
    large = EmojiScenes(96, seed=3)
    for index in range(50):
        small_scene, large_scene = training[index], large.scene(index)
        assert small_scene.caption == large_scene.caption and small_scene.relations == large_scene.relations
        for small, big in zip(small_scene.sprites, large_scene.sprites, strict=True):
            assert np.abs(np.array(small.box) * 2 - big.box).max() <= 4  # rounding to pixels


def test_no_pair_of_concepts_is_in_both_splits(training, held_out):
    pairs = lambda scenes: {pair for s in scenes for pair in itertools.combinations(sorted(concept_set(s)), 2)}  # noqa: E731
    assert not pairs(training) & pairs(held_out)
    rule = EmojiScenes(16).combinations
    number = {concept.name: index for index, concept in enumerate(concepts())}
    assert all(rule.held_out(number[a], number[b]) for a, b in pairs(held_out))
    assert not any(rule.held_out(number[a], number[b]) for a, b in pairs(training))
    assert 0.07 < len(rule.pairs) / (len(number) * (len(number) - 1) / 2) < 0.13


def test_no_held_out_combination_is_part_of_another(held_out):
    sets = [concept_set(scene) for scene in held_out]
    assert len(set(sets)) == 500
    assert not any(a < b for a in sets for b in sets)
    assert len({scene.caption for scene in held_out}) == 500
    assert sum(len(s) == 3 for s in sets) >= 50


def test_every_concept_and_every_training_drawing_occurs_but_no_held_out_one(training):
    small = EmojiScenes(16)
    used = {sprite.drawing for index in range(6000) for sprite in small.scene(index).sprites}
    assert {c.name for c in concepts()} == {sprite.concept for scene in training for sprite in scene.sprites}
    assert used == {drawing for concept in concepts() for drawing in concept.drawings}


def test_boxes_are_exact(training):
    bank = PatchBank()
    for scene in training[:150]:
        for sprite in scene.sprites:
            black, white = np.zeros((48, 48, 3), np.uint8), np.full((48, 48, 3), 255, np.uint8)
            for canvas in (black, white):
                paste(canvas, bank.patch(sprite.drawing, round(sprite.scale * 48), sprite.rotation), *sprite.box[:2])
            alpha = 255 - (white.astype(int) - black).mean(-1)  # what differs between the two grounds isn't covered
            assert np.any(alpha >= MIN_ALPHA - 2)
            rows, columns = np.nonzero(alpha >= MIN_ALPHA - 2)  # rounding
            assert sprite.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert abs(max(sprite.box[2] - sprite.box[0], sprite.box[3] - sprite.box[1]) - 48 * sprite.scale) <= 1.5


def test_pixels_outside_the_boxes_are_background(scenes, training):
    for scene in training[:50]:
        covered = np.zeros((48, 48), bool)
        for sprite in scene.sprites:
            left, top, right, bottom = sprite.box
            covered[top:bottom, left:right] = True
        different = (scenes.render(scene) != scenes.render(scene._replace(sprites=()))).any(-1)
        assert not (different & ~covered).any() and different.any()


def test_sprites_hardly_overlap(training):
    for scene in training:
        for a, b in itertools.combinations([sprite.box for sprite in scene.sprites], 2):
            shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
            smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
            assert shared <= 0.15 * smaller


def holds(relation, first, second):
    """Whether a relation is plain to see between the centres of two boxes."""
    across = (first[0] + first[2] - second[0] - second[2]) / 2
    down = (first[1] + first[3] - second[1] - second[3]) / 2
    distance = {"left of": -across, "right of": across, "above": -down, "below": down, "next to": abs(across)}[relation]
    return distance > 0.2 * 48


def test_captions_are_true(training, held_out):
    """Reads each caption without the code that wrote it, and looks the relation up in the boxes."""
    phrases = sorted(((p, name) for name, several in PHRASES.items() for p in several), key=lambda pair: -len(pair[0]))
    seen = set()
    for scene in training + held_out:
        sentence = re.sub(r"^on an? \w+ background, |, \w+ background$| on an? \w+ background$", "", scene.caption)
        phrase, relation = next((p, name) for p, name in phrases if f" {p} " in sentence)
        seen.add(relation)
        first, second = sentence.split(f" {phrase} ")
        first = re.sub(r" (is|are)$", "", first)
        subjects, objects = (named(part, scene) for part in (first, second))
        assert sorted(subjects + objects) == list(range(len(scene.sprites)))
        boxes = [sprite.box for sprite in scene.sprites]
        if relation == "between":
            one, other = objects
            direction = next(
                r for r in ("left of", "right of", "above", "below") if holds(r, boxes[one], boxes[subjects[0]])
            )
            assert holds(direction, boxes[subjects[0]], boxes[other])
        else:
            assert all(holds(relation, boxes[s], boxes[o]) for s in subjects for o in objects), scene
        if "background" in scene.caption:
            assert f"{scene.background} background" in scene.caption
    assert seen == set(PHRASES)


def named(part, scene):
    """Sprites that a noun phrase names."""
    found = []
    for noun in part.split(" and "):
        if noun.startswith("two "):
            members = [i for i, sprite in enumerate(scene.sprites) if plural(sprite.concept) == noun[4:]]
            assert len(members) == 2
        else:
            article, name = noun.split(" ", 1)
            assert article == ("an" if name[0] in "aeiou" and name != "unicorn" else "a")
            members = [i for i, sprite in enumerate(scene.sprites) if sprite.concept == name]
            assert len(members) == 1
        found += members
    return found


def test_relations_agree_with_the_boxes(training):
    for scene in training:
        for relation in scene.relations:
            if relation.name != "between":
                (other,) = relation.objects
                assert holds(relation.name, scene.sprites[relation.subject].box, scene.sprites[other].box)


def test_captions_are_short(training):
    lengths = [len(re.findall(r"\w+|,", scene.caption)) for scene in training]
    assert max(lengths) <= 19 and 8 <= np.mean(lengths) <= 13


def test_two_sprites_only(held_out):
    scenes = EmojiScenes(48, max_sprites=2)
    assert {len(scenes.scene(index, split).sprites) for index in range(200) for split in ("train", "val")} == {2}
    assert scenes.num_val >= 500


@pytest.mark.parametrize(
    ("settings", "key"),
    [({"image_size": 8}, "image_size"), ({"max_sprites": 4}, "max_sprites"), ({"held_out_fraction": 0.0}, "held_out")],
)
def test_impossible_settings(settings, key):
    with pytest.raises(ValueError, match=key):
        EmojiScenes(**settings)


def test_impossible_scenes(scenes):
    with pytest.raises(ValueError, match="split 'test'"):
        scenes.scene(0, "test")
    with pytest.raises(ValueError, match="negative"):
        scenes.scene(-1)
