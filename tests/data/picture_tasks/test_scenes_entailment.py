"""Entailment on scenes: labels are true by the boxes, a picture or a sentence alone tells nothing, batches and what is hidden."""

import re
from types import SimpleNamespace

import text_only
from alignlab.data.emoji.concepts import plural
from alignlab.data.emoji.scenes import Scene
from alignlab.data.picture_tasks.modules import JudgedDataModule
from alignlab.data.picture_tasks.scenes_entailment import SceneEntailment
from caption_reader import is_true

import pytest
import torch

SIZE = 24
CONTRADICTION, NEUTRAL, ENTAILMENT = range(3)


@pytest.fixture(scope="module")
def source() -> SceneEntailment:
    return SceneEntailment(SIZE, num_val=300, facts=["relations", "which_is_where", "counts", "backgrounds", "sizes"])


def told(source: SceneEntailment, split: str, number: int) -> list[tuple[Scene, str, int]]:
    """What is shown, the sentence and the label of the first rows."""
    shown: list[Scene] = []
    render, source.scenes.render = source.scenes.render, shown.append
    rows = [source.row(serial, split) for serial in range(number)]
    source.scenes.render = render
    return [(scene, row.text, row.label) for scene, row in zip(shown, rows, strict=True)]


def named(sentence: str, names: set[str]) -> set[str]:
    """Concepts that a sentence names, "police car" before "car"."""
    found = set()
    for name in sorted(names, key=len, reverse=True):
        sentence, number = re.subn(rf"\b({re.escape(plural(name))}|{re.escape(name)})\b", "", sentence)
        found |= {name} if number else set()
    return found


@pytest.mark.parametrize("split", ["train", "val"])
def test_labels_are_true(source: SceneEntailment, split: str) -> None:
    names, labels = {concept.name for concept in source.scenes.concepts}, []
    for scene, sentence, label in told(source, split, 400):
        there = {sprite.concept for sprite in scene.sprites}
        assert is_true(sentence, scene, SIZE) is (label == ENTAILMENT), (sentence, scene)
        assert len(named(sentence, names) - there) == (label == NEUTRAL), (sentence, there)
        labels.append(label)
    assert all(95 < labels.count(label) < 175 for label in range(3))


def test_neither_sentences_nor_pictures_alone_tell_the_label() -> None:
    source = SceneEntailment(SIZE, num_val=200, facts=["counts", "which_is_where"])  # most scenes tell of one, not two
    train, val = told(source, "train", 1800), told(source, "val", 600)
    for number in range(0, 600, 3):
        assert val[number][0] == val[number + 1][0] == val[number + 2][0]
        assert [label for *_, label in val[number : number + 3]] == [CONTRADICTION, NEUTRAL, ENTAILMENT]
    found = text_only.accuracy([row[1:] for row in train], [row[1:] for row in val])
    assert abs(found - 1 / 3) < 0.06, found  # three deviations of 600 rows
    gap, word = text_only.largest_gap([row[1:] for row in train])
    assert gap < 4.5, word  # some 200 words and three pairs of labels


def test_rows_are_functions_of_their_number_and_epochs_have_new_ones(source: SceneEntailment) -> None:
    one, same, later = (source.row(serial, "train") for serial in (5, 5, 5 + source.num_rows("train")))
    assert one.text == same.text and (one.pictures[0] == same.pictures[0]).all() and one.text != later.text


def test_batches_and_what_is_hidden() -> None:
    batches = {}
    for hide in ("nothing", "pictures", "texts"):
        data = JudgedDataModule(
            SceneEntailment, hide=hide, num_train=64, num_val=20, image_size=24, batch_size=16, num_workers=0
        )
        data.trainer = SimpleNamespace(global_rank=0, world_size=1)
        data.setup("fit")
        data.trainer = None
        batches[hide] = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    plain, blind, silent = batches.values()
    assert plain.image.shape == (16, 1, 3, 24, 24) and plain.image.is_floating_point()
    assert plain.label.tolist() == [number % 3 for number in range(16)]
    assert torch.equal(plain.ids, blind.ids) and not torch.equal(plain.image, blind.image)
    assert all(len(channel.unique()) == 1 for channel in blind.image.transpose(0, 2))
    assert torch.equal(plain.image, silent.image) and silent.ids.shape == (16, 1)
    with pytest.raises(ValueError, match="hide is 'all'"):
        JudgedDataModule(SceneEntailment, hide="all")


def test_facts_that_a_scene_does_not_tell_are_an_error() -> None:
    source = SceneEntailment(SIZE, facts=["sizes"])
    with pytest.raises(ValueError, match=r"facts is \['sizes'\].*add counts or backgrounds"):
        for serial in range(40):
            source.row(serial, "train")
