"""Questions about scenes: answers are true by the boxes, the question alone tells nothing, batches with and without all answers."""

import re
from collections import Counter
from types import SimpleNamespace

import text_only
from alignlab.data.emoji.concepts import plural
from alignlab.data.emoji.scenes import Scene
from alignlab.data.picture_tasks.modules import QuestionDataModule
from alignlab.data.picture_tasks.questions import Question
from alignlab.data.picture_tasks.scenes_questions import SceneQuestions
from caption_reader import holds

import pytest

SIZE = 24
PHRASES = {"to the left of": "left of", "to the right of": "right of", "above": "above", "below": "below"}
SIDES = {"left": "left of", "right": "right of", "above": "above", "below": "below"}


@pytest.fixture(scope="module")
def source() -> SceneQuestions:
    return SceneQuestions(SIZE, num_val=100)


def asked(source: SceneQuestions, split: str, number: int) -> list[tuple[Scene, Question]]:
    """What is shown and asked in the first rows."""
    shown: list[Scene] = []
    render, source.scenes.render = source.scenes.render, shown.append
    rows = [source.question(serial, split) for serial in range(number)]
    source.scenes.render = render
    return list(zip(shown, rows, strict=True))


def answer(question: str, scene: Scene) -> set[str]:
    """What is right, read from the question's words and the scene's boxes."""
    boxes: dict[str, list] = {}
    for sprite in scene.sprites:
        boxes.setdefault(sprite.concept, []).append(sprite.box)

    def of(noun: str) -> list:
        name = next(name for name in boxes if noun in (f"the {name}", f"the two {plural(name)}"))
        assert noun.startswith("the two") == (len(boxes[name]) == 2)
        return boxes[name]

    def stands(first: list, side: str, second: list) -> bool:
        return all(holds(side, one, other, SIZE) for one in first for other in second)

    if match := re.fullmatch(r"where (?:is|are) (.*), seen from (.*)", question):
        return {word for word, side in SIDES.items() if stands(of(match[1]), side, of(match[2]))}
    if match := re.fullmatch(rf"(?:is|are) (the .*) ({'|'.join(PHRASES)}) (the .*)", question):
        return {"yes" if stands(of(match[1]), PHRASES[match[2]], of(match[3])) else "no"}
    if match := re.fullmatch(rf"what is ({'|'.join(PHRASES)}) (.*)", question):
        return {
            name
            for name, there in boxes.items()
            if there != of(match[2]) and stands(there, PHRASES[match[1]], of(match[2]))
        }
    if match := re.fullmatch(r"is there an? (.*)", question):
        return {"yes" if match[1] in boxes or (match[1] == "thumbs up" and "thumbs up" in boxes) else "no"}
    if match := re.fullmatch(r"how many (.*) are there", question):
        return {("one", "two")[len(there) - 1] for name, there in boxes.items() if plural(name) == match[1]}
    return {scene.background} if question == "what colour is the background" else set(boxes)


@pytest.mark.parametrize("split", ["train", "val"])
def test_answers_are_true(source: SceneQuestions, split: str) -> None:
    kinds = Counter()
    for scene, question in asked(source, split, 700):
        given = dict(question.answers)
        wanted = answer(question.text, scene)
        if question.kind in ("where", "which"):  # two things of a group may stand a bit apart along the axis too
            assert given.keys() <= wanted, (question, scene.caption)
        else:
            assert given.keys() == wanted, (question, scene.caption)
        assert sum(given.values()) == pytest.approx(1) and given.keys() <= set(source.answers)
        kinds[question.kind] += 1
    assert set(kinds) == set(source.kinds) and min(kinds.values()) > 50


def test_a_question_alone_tells_nothing(source: SceneQuestions) -> None:
    number = {answer: place for place, answer in enumerate(source.answers)}
    rows = [
        (question.text, number[question.answers[0][0]], question.kind) for _, question in asked(source, "train", 3500)
    ]
    train, held_out = rows[:2500], rows[2500:]
    chance = 0.0
    for kind in source.kinds:
        answers = Counter(label for _, label, of in rows if of == kind)
        chance += answers.most_common(1)[0][1] / len(rows)
        if len(answers) < 20:  # neither names of things nor their pairs
            assert max(answers.values()) / min(answers.values()) < 2, (kind, answers)
    found = text_only.accuracy([row[:2] for row in train], [row[:2] for row in held_out])
    assert found < chance + 0.05, (found, chance)
    assert 0.2 < chance < 0.35


def test_batches_know_all_answers_where_it_is_measured() -> None:
    data = QuestionDataModule(SceneQuestions, num_train=64, num_val=10, image_size=24, batch_size=14, num_workers=0)
    data.trainer = SimpleNamespace(global_rank=0, world_size=1)
    data.setup("fit")
    batch, held_out = next(iter(data.train_dataloader())), next(iter(data.val_dataloader()))
    assert batch.candidates is None and batch.image.shape == (14, 3, 24, 24)
    assert batch.question.tolist() == sorted(batch.question.tolist()) and set(batch.question.tolist()) == set(range(14))
    assert batch.weight.sum() == pytest.approx(14)
    ends = batch.answers.ids.gather(1, batch.answers.mask.sum(1, keepdim=True) - 1)
    assert (ends == data.vocabulary.sep_id).all() and (batch.answers.ids[:, 0] == data.vocabulary.cls_id).all()
    assert data.tokenizer.unk_token_id not in batch.ids and data.tokenizer.unk_token_id not in held_out.candidates.ids
    assert held_out.kind == (*data.source.kinds, *data.source.kinds)
    assert held_out.credit.shape == (14, len(data.source.answers)) and (held_out.credit.amax(1) == 1).all()
