"""The table of concepts: names, drawings, and which drawings are held out."""

from alignlab.data.emoji.concepts import concepts, plural, singular
from alignlab.data.emoji.drawings import HELD_OUT_TONES, drawing_families, drawing_picture, family_of, has_tone


def test_enough_concepts_with_distinct_names_and_drawings():
    names = [concept.name for concept in concepts()]
    assert len(names) >= 100 and len(set(names)) == len(names)
    drawings = [drawing for concept in concepts() for drawing in concept.drawings + concept.held_out]
    assert len(set(drawings)) == len(drawings)  # none stands for two concepts, none is both trained on and held out
    assert all(drawing_picture(drawing).size == (72, 72) for drawing in drawings)


def test_many_concepts_have_unseen_drawings():
    with_unseen = [concept for concept in concepts() if concept.held_out]
    assert len(with_unseen) >= 25
    assert all(concept.drawings for concept in concepts())
    assert not any(has_tone(drawing, HELD_OUT_TONES) for concept in concepts() for drawing in concept.drawings)


def test_families_join_tone_gender_and_hair():
    assert family_of("1f469-1f3fd-200d-1f373") == family_of("1f468-200d-1f373") == "1f9d1-200d-1f373"
    assert family_of("1f9d9-1f3fb-200d-2640-fe0f") == "1f9d9"
    assert family_of("1f469-1f3fb-200d-1f9b0") == "1f9d1"
    assert family_of("1f3fb") == "1f3fb" and family_of("1f408-200d-2b1b") == "1f408-200d-2b1b"
    assert len(drawing_families()["1f44d"]) == 6


def test_articles_and_plurals():
    assert [singular(n) for n in ("apple", "dog", "unicorn", "ice cream")] == [
        "an apple",
        "a dog",
        "a unicorn",
        "an ice cream",
    ]
    assert [plural(n) for n in ("dog", "fox", "butterfly", "key", "foot", "bus", "thumbs up", "cactus")] == [
        "dogs", "foxes", "butterflies", "keys", "feet", "buses", "thumbs up", "cactuses",
    ]  # fmt: skip
