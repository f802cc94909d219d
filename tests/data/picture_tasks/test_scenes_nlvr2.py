"""Sentences about two scenes: true by the boxes, neither pictures nor sentences alone tell the label; text assignment."""

import re
from collections import Counter

import text_only
from alignlab.data.emoji.scenes import Scene
from alignlab.data.picture_tasks.scenes_nlvr2 import BOTH, LEFT, ONE, RIGHT, SceneComparisons
from caption_reader import is_true

import pytest

SIZE = 24
HOLDS = {
    BOTH: lambda first, second: first and second,
    ONE: lambda first, second: first != second,
    LEFT: lambda first, second: first,
    RIGHT: lambda first, second: second,
}


def told(source: SceneComparisons, split: str, number: int) -> list[tuple[list[Scene], str, int]]:
    """What is shown, the sentence and the label of the first rows."""
    shown: list[Scene] = []
    render, source.scenes.render = source.scenes.render, shown.append
    rows = [source.row(serial, split) for serial in range(number)]
    source.scenes.render = render
    return [(shown[2 * i : 2 * i + 2], row.text, row.label) for i, row in enumerate(rows)]


@pytest.mark.parametrize("split", ["train", "val"])
def test_labels_are_true(split: str) -> None:
    forms = Counter()
    for shown, sentence, label in told(SceneComparisons(SIZE), split, 400):
        form, caption = re.fullmatch(r"(.*? shows?) (.*)", sentence).groups()
        assert HOLDS[form](*(is_true(caption, scene, SIZE) for scene in shown)) is bool(label), (sentence, shown)
        forms[form, label] += 1
    assert len(forms) == 8 and min(forms.values()) > 30


def test_neither_sentences_nor_pictures_alone_tell_the_label() -> None:
    rows = told(SceneComparisons(SIZE, facts=["counts", "which_is_where"]), "train", 2400)
    texts = [row[1:] for row in rows]
    assert abs(text_only.accuracy(texts[:1500], texts[1500:]) - 0.5) < 0.05
    gap, word = text_only.largest_gap(texts)
    assert gap < 4.5, word
    # all that pictures tell: whether they show the same
    same = Counter((one.statement == other.statement, label) for (one, other), _, label in rows)
    for equal in (True, False):
        assert abs(same[equal, 1] / (same[equal, 0] + same[equal, 1]) - 0.5) < 0.05, same


def test_a_caption_belongs_to_the_first_picture_the_second_or_neither() -> None:
    rows = told(SceneComparisons(SIZE, assignment=True), "train", 300)
    for shown, caption, label in rows:
        assert [is_true(caption, scene, SIZE) for scene in shown] == [label == 0, label == 1]
    assert min(Counter(label for *_, label in rows).values()) > 70
