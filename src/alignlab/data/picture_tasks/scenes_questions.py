"""Questions about emoji scenes whose answers are exact, and which nobody can guess who doesn't look."""

from collections.abc import Iterator
from typing import Any

from alignlab.data.emoji.backgrounds import COLOUR_NAMES
from alignlab.data.emoji.captions import OPPOSITE, PHRASES, Draw
from alignlab.data.emoji.concepts import plural, singular
from alignlab.data.emoji.scene_pairs import EmojiScenePairs
from alignlab.data.emoji.scenes import Scene
from alignlab.data.picture_tasks.questions import Question

_QUESTIONS = 33  # a purpose of random numbers
_SIDES = {"left of": "left", "right of": "right", "above": "above", "below": "below"}
_NUMBERS = ("one", "two")
Asked = tuple[str, list[str]]  # a question, its answers, all equally good


class SceneQuestions(EmojiScenePairs):
    """The source behind `data=emoji_scenes_vqa`: a kind of question at random for a training scene, all kinds for a
    held-out one.

    The answer of every kind is equally often each of those that the question leaves open: relations are asked in both
    directions, numbers of a scene or of the same with one thing more or less, things that are there or aren't.
    A scene that a kind doesn't fit is asked for another one.

    Args:
        image_size: height and width in pixels.
        settings: see `EmojiScenePairs`.
    """

    kinds = ("where", "is_where", "which", "is_there", "how_many", "background", "what")

    def __init__(self, image_size: int, **settings: Any) -> None:
        super().__init__(image_size, **settings)
        self._names = [concept.name for concept in self.scenes.concepts]
        self.answers = ("yes", "no", *_SIDES.values(), *_NUMBERS, *COLOUR_NAMES, *self._names)

    def num_rows(self, split: str) -> int:
        return self.num_pictures(split) * (1 if split == "train" else len(self.kinds))

    def question(self, serial: int, split: str) -> Question:
        """A picture, a question and its answers with equal shares."""
        number, kind = (serial, None) if split == "train" else divmod(serial, len(self.kinds))
        draw = self.scenes.draws(number, split, _QUESTIONS + (kind or 0))
        kind = int(draw() * len(self.kinds)) if kind is None else kind
        scene = self.scenes.scene(number, split)
        if self.kinds[kind] == "how_many":
            other = self.families.change(scene, "counts", draw)
            if other is None:  # three different things
                kind = self.kinds.index("is_there")
            else:
                scene = other if draw() < 0.5 else scene
        text, answers = getattr(self, f"_{self.kinds[kind]}")(scene, split == "val", draw)
        shared = [(answer, 1 / len(answers)) for answer in answers]
        return Question(self.scenes.render(scene), text, shared, self.kinds[kind])

    def _where(self, scene: Scene, held_out: bool, draw: Draw) -> Asked:
        first, side, second = self._relation(scene, draw)
        return f"where {first}, seen from {second}", [_SIDES[side]]

    def _is_where(self, scene: Scene, held_out: bool, draw: Draw) -> Asked:
        first, side, second = self._relation(scene, draw)
        true = draw() < 0.5
        phrase = PHRASES[side if true else OPPOSITE[side]][0]
        verb, _, noun = first.partition(" ")
        return f"{verb} {noun} {phrase} {second}", ["yes" if true else "no"]

    def _which(self, scene: Scene, held_out: bool, draw: Draw) -> Asked:
        sides = [relation for relation in scene.relations if relation.name in OPPOSITE]
        relation = sides[int(draw() * len(sides))]
        asked, side = relation.objects[0], relation.name
        if draw() < 0.5:
            asked, side = relation.subject, OPPOSITE[side]
        there = {s.objects[0] for s in sides if s.subject == asked and OPPOSITE[s.name] == side}
        there |= {s.subject for s in sides if s.objects[0] == asked and s.name == side}
        names = [sprite.concept for sprite in scene.sprites]
        if names.count(names[asked]) == 2:  # both stand on the same side of the third
            there = {number for number, name in enumerate(names) if name != names[asked]}
        if len(sides) < len(scene.relations) and asked != 1:  # an end of a row: the other end stands there too
            there = {0, 1, 2} - {asked}
        text = f"what is {PHRASES[side][0]} {self._the(names, names[asked])}"
        return text, sorted({names[number] for number in there})

    def _is_there(self, scene: Scene, held_out: bool, draw: Draw) -> Asked:
        there = list(dict.fromkeys(sprite.concept for sprite in scene.sprites))
        true = draw() < 0.5
        names = there if true else [name for name in self._names if name not in there]
        return f"is there {singular(names[int(draw() * len(names))])}", ["yes" if true else "no"]

    def _how_many(self, scene: Scene, held_out: bool, draw: Draw) -> Asked:
        names = [sprite.concept for sprite in scene.sprites]
        twice = next((name for name in names if names.count(name) == 2), None)
        name = twice or names[int(draw() * len(names))]
        return f"how many {plural(name)} are there", [_NUMBERS[names.count(name) - 1]]

    def _background(self, scene: Scene, held_out: bool, draw: Draw) -> Asked:
        return "what colour is the background", [scene.background]

    def _what(self, scene: Scene, held_out: bool, draw: Draw) -> Asked:
        return "what is in the picture", sorted({sprite.concept for sprite in scene.sprites})

    def _relation(self, scene: Scene, draw: Draw) -> tuple[str, str, str]:
        """What is where, either way round: "is the dog", "left of", "the cat"."""
        sides = [relation for relation in scene.relations if relation.name in OPPOSITE]
        relation = sides[int(draw() * len(sides))]
        names = [sprite.concept for sprite in scene.sprites]
        ends, side = [names[relation.subject], names[relation.objects[0]]], relation.name
        if draw() < 0.5:
            ends, side = ends[::-1], OPPOSITE[side]
        verb = "are" if names.count(ends[0]) == 2 else "is"
        return f"{verb} {self._the(names, ends[0])}", side, self._the(names, ends[1])

    @staticmethod
    def _the(names: list[str], name: str) -> str:
        return f"the two {plural(name)}" if names.count(name) == 2 else f"the {name}"

    def vocabulary_texts(self) -> Iterator[str]:
        """Those of the scenes, then the words of questions and answers."""
        yield from super().vocabulary_texts()
        yield "where is are the seen from what is there how many colour in the picture"
        yield " ".join(self.answers)
