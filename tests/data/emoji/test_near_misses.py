"""Near misses: one fact changed, both captions true of their own picture and false of the other."""

import re

from alignlab.data.emoji.captions import PHRASES
from alignlab.data.emoji.concepts import plural
from alignlab.data.emoji.near_misses import FACTS, NearMisses
from alignlab.data.emoji.scenes import EmojiScenes
from alignlab.data.emoji.sentences import short_sentences
from caption_reader import is_true

import pytest

SIZE = 48


@pytest.fixture(scope="module")
def scenes():
    return EmojiScenes(SIZE, seed=3)


@pytest.fixture(scope="module")
def families(scenes):
    """Scenes, sizes and colours told in some, each with its near misses by fact."""
    family = NearMisses(scenes, FACTS)
    found = []
    for index in range(900):
        draw = scenes.draws(index, purpose=9)
        scene = family.detailed(scenes.scene(index), draw)
        found.append((scene, {fact: c for fact in FACTS if (c := family.change(scene, fact, draw)) is not None}))
    return found


def test_each_caption_is_true_of_its_own_picture_alone(families):
    seen = dict.fromkeys(FACTS, 0)
    for scene, changes in families:
        assert is_true(scene.caption, scene, SIZE), scene
        for fact, changed in changes.items():
            assert is_true(changed.caption, changed, SIZE), (fact, scene, changed)
            assert not is_true(changed.caption, scene, SIZE), (fact, scene.caption, changed.caption)
            assert not is_true(scene.caption, changed, SIZE), (fact, scene.caption, changed.caption)
            seen[fact] += 1
    assert all(seen[fact] > 400 for fact in ("relations", "which_is_where", "counts", "backgrounds"))
    assert seen["sizes"] > 100 and seen["colours"] > 5, seen


def test_nothing_but_the_fact_changes(families):
    for scene, changes in families:
        for fact, changed in changes.items():
            assert changed.texture == scene.texture and changed.shade == scene.shade
            assert changed.statement.wording == scene.statement.wording
            assert (changed.background == scene.background) == (fact != "backgrounds")
            concepts = [{sprite.concept for sprite in s.sprites} for s in (scene, changed)]
            assert concepts[0] == concepts[1]
            assert (len(changed.sprites) == len(scene.sprites)) == (fact != "counts")


def test_sprites_of_near_misses_hardly_overlap(families):
    for _, changes in families:
        for changed in changes.values():
            boxes = [sprite.box for sprite in changed.sprites]
            for i, a in enumerate(boxes):
                assert min(a) >= 0 and max(a) <= SIZE
                for b in boxes[:i]:
                    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
                    assert shared <= 0.25 * min((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)), changed


def test_foils_are_false_and_short_sentences_true(scenes, families):
    """A short sentence is true by the relation between what it names; with the opposite word it is false."""
    family, opposite = NearMisses(scenes), {"left": "right", "above": "below", "over": "under", "big": "small"}
    opposite |= {word: other for other, word in opposite.items()}
    words = set()
    for scene, _ in families[:300]:
        draw = scenes.draws(7, purpose=8)
        foils = family.foils(scene, 3, draw)
        assert len(foils) == 3 and not any(is_true(foil, scene, SIZE) for foil in foils)
        for text, start, end in short_sentences(scene, 4, draw):
            word = text[start:end]
            words.add(word)
            if " of " in text or word in ("above", "over", "below", "under"):
                turned = text[:start] + opposite[word] + text[end:]
                assert says(text, scene) and not says(turned, scene), (text, scene)
    assert {*opposite} - words <= {"big", "small"} and words & {"red", "blue", "green"}


def says(sentence, scene):
    """Whether a sentence about some of the things holds."""
    nouns = re.split(rf" (?:{'|'.join(p for several in PHRASES.values() for p in several)}) ", sentence)
    names = {noun.split(" ", 1)[1] for noun in nouns}
    named = tuple(sprite for sprite in scene.sprites if names & {sprite.concept, plural(sprite.concept)})
    return is_true(sentence, scene._replace(sprites=named), SIZE)


def test_impossible_facts(scenes):
    with pytest.raises(ValueError, match=r"facts is \['weights'\]; there is no 'weights': relations"):
        NearMisses(scenes, ["weights"])
    with pytest.raises(ValueError, match="must name each once"):
        NearMisses(scenes, ["counts", "counts"])
    with pytest.raises(ValueError, match=r"facts is \['sizes'\].*no foil: add (counts|backgrounds)"):
        NearMisses(scenes, ["sizes"]).foils(scenes.scene(0), 1, scenes.draws(0))
