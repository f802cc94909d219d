"""Emoji scenes with sentences that follow from the picture, contradict it, or say what it doesn't tell."""

from typing import Any

from alignlab.data.emoji.captions import Draw, Statement, Thing
from alignlab.data.emoji.scene_pairs import EmojiScenePairs
from alignlab.data.picture_tasks.rows import Judged

_JUDGED = 32  # a purpose of random numbers


class SceneEntailment(EmojiScenePairs):
    """The source behind `data=emoji_scenes_entailment`.

    A scene and its near miss differ by one fact; either may be the picture. Entailment: its own caption. Contradiction:
    the other's. Neutral: its own caption with one of the things replaced by a thing that it doesn't show, for what lies
    beyond a picture's edge nobody knows. So a picture says nothing of the label, nor does a sentence: all three are
    about things, relations, numbers and backgrounds with the same frequency. Held-out scenes come three times each,
    with the three labels.

    Args:
        image_size: height and width in pixels.
        settings: see `EmojiScenePairs`; `facts` says what may tell a scene from its near miss.
    """

    pictures_a_row = 1
    labels = ("contradiction", "neutral", "entailment")  # salesforce/ALBEF b9727e4 dataset/ve_dataset.py:14

    def __init__(self, image_size: int, **settings: Any) -> None:
        super().__init__(image_size, **settings)
        self._number = {concept.name: number for number, concept in enumerate(self.scenes.concepts)}

    def num_rows(self, split: str) -> int:
        return self.num_pictures(split) * (1 if split == "train" else len(self.labels))

    def row(self, serial: int, split: str) -> Judged:
        """A picture, a sentence and the label's number; of a held-out scene's three rows the picture is the same."""
        number, label = (serial, None) if split == "train" else divmod(serial, len(self.labels))
        draw = self.scenes.draws(number, split, _JUDGED)
        scene = self.families.detailed(self.scenes.scene(number, split), draw)
        other = self.families.told_apart(scene, draw, "it can't be contradicted: add counts or backgrounds")
        shown, other = (scene, other) if draw() < 0.5 else (other, scene)
        label = int(draw() * len(self.labels)) if label is None else label
        stranger = self._with_a_stranger(shown.statement, split == "val", draw)
        sentence = (other.caption, stranger.caption, shown.caption)[label]
        return Judged([self.scenes.render(shown)], sentence, label)

    def _with_a_stranger(self, told: Statement, held_out: bool, draw: Draw) -> Statement:
        """One of its things is another one, which may stand beside the others as often as those beside each other."""
        names = list(dict.fromkeys(thing.name for thing in (*told.subject, *told.objects)))
        leaves = names.pop(int(draw() * len(names)))
        kept = [self._number[name] for name in names]
        strangers = [number for name, number in self._number.items() if name not in (leaves, *names)]
        meets = self.scenes.combinations.held_out
        for known in (kept, kept[:1], []):  # in held-out scenes every pair is held out, as far as there is such a thing
            fitting = [s for s in strangers if all(meets(s, k) == held_out for k in known)]
            if fitting:
                break
        comes = self.scenes.concepts[fitting[int(draw() * len(fitting))]].name

        def exchange(thing: Thing) -> Thing:
            return thing._replace(name=comes, colour="") if thing.name == leaves else thing

        return told._replace(subject=tuple(map(exchange, told.subject)), objects=tuple(map(exchange, told.objects)))
