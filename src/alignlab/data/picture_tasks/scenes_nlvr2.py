"""Sentences about two emoji scenes: true or false; or which of the two a caption belongs to."""

from collections.abc import Iterator
from typing import Any

from alignlab.data.emoji.backgrounds import NUM_TEXTURES
from alignlab.data.emoji.captions import Draw
from alignlab.data.emoji.scene_pairs import EmojiScenePairs
from alignlab.data.emoji.scenes import Scene
from alignlab.data.picture_tasks.rows import Judged

_COMPARED = 40  # a purpose of random numbers
BOTH, ONE, LEFT, RIGHT = (
    "both pictures show",
    "just one picture shows",
    "the left picture shows",
    "the right picture shows",
)
FORMS = (BOTH, ONE, LEFT, RIGHT)
# Which of two pictures the caption is true of, by form and label.
_TRUE_OF = {
    (BOTH, 1): ((1, 1),),
    (BOTH, 0): ((1, 0), (0, 1)),
    (ONE, 1): ((1, 0), (0, 1)),
    (ONE, 0): ((1, 1), (0, 0)),
    (LEFT, 1): ((1, 1), (1, 0)),
    (LEFT, 0): ((0, 1), (0, 0)),
    (RIGHT, 1): ((1, 1), (0, 1)),
    (RIGHT, 0): ((1, 0), (0, 0)),
}


class SceneComparisons(EmojiScenePairs):
    """The source behind `data=emoji_scenes_nlvr2`.

    A scene and its near miss differ by one fact; each of the two pictures shows one or the other, in its own light, and
    the sentence tells of both pictures, just one, the left or the right what one of the two captions says. So neither
    the sentence alone nor the pictures alone say anything of the label. Held-out scenes come eight times each, with
    every form true and false.

    Args:
        image_size: height and width in pixels.
        assignment: instead a caption with two pictures, of which the first (0), the second (1) or neither (2) is its
            own, the others its near miss and another scene.
        settings: see `EmojiScenePairs`; `facts` says what may tell a scene from its near miss.
    """

    pictures_a_row = 2

    def __init__(self, image_size: int, *, assignment: bool = False, **settings: Any) -> None:
        super().__init__(image_size, **settings)
        self.assignment = assignment
        self.labels = ("first", "second", "neither") if assignment else ("false", "true")

    def num_rows(self, split: str) -> int:
        return self.num_pictures(split) * (1 if split == "train" else len(self._cases))

    @property
    def _cases(self) -> list[tuple[str, int]]:
        """Form and label."""
        forms = ("",) if self.assignment else FORMS
        return [(form, label) for form in forms for label in range(len(self.labels))]

    def row(self, serial: int, split: str) -> Judged:
        """Two pictures, a sentence and the label's number."""
        cases = self._cases
        number, case = (serial, None) if split == "train" else divmod(serial, len(cases))
        draw = self.scenes.draws(number, split, _COMPARED + (case or 0))
        form, label = cases[int(draw() * len(cases)) if case is None else case]
        scene = self.families.detailed(self.scenes.scene(number, split), draw)
        other = self.families.told_apart(scene, draw, "there is nothing to compare: add counts or backgrounds")
        told, other = (scene, other) if draw() < 0.5 else (other, scene)
        if self.assignment:
            away = self._elsewhere(number, scene, split, draw)
            near, far = (other, away) if draw() < 0.5 else (away, other)
            shown = ((told, near), (near, told), (near, far))[label]
        else:
            of = _TRUE_OF[form, label]
            shown = tuple(told if true else other for true in of[int(draw() * len(of))])
        pictures = [self.scenes.render(_in_another_light(scene, draw)) for scene in shown]
        return Judged(pictures, f"{form} {told.caption}".strip(), label)

    def _elsewhere(self, number: int, scene: Scene, split: str, draw: Draw) -> Scene:
        """A scene of other things."""
        things = {sprite.concept for sprite in scene.sprites}
        while True:
            away = self.scenes.scene((number + 1 + int(draw() * (self.num_val - 1))) % self.num_pictures(split), split)
            if things != {sprite.concept for sprite in away.sprites}:
                return away

    def vocabulary_texts(self) -> Iterator[str]:
        """Those of the scenes, then the words around captions."""
        yield from super().vocabulary_texts()
        yield " ".join(FORMS)


def _in_another_light(scene: Scene, draw: Draw) -> Scene:
    """Another texture and shade of the background's colour: everything that is told stays."""
    shade = (2 * draw() - 1, 2 * draw() - 1, 2 * draw() - 1)
    return scene._replace(texture=int(draw() * NUM_TEXTURES), shade=shade)
