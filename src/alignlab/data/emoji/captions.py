"""English captions of scenes: "a red book to the left of two bees" and the like, from what is where."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from alignlab.data.emoji.concepts import plural, singular

# Wordings of a relation between something and something else, the first the most frequent.
PHRASES = {
    "left of": ("to the left of", "left of"),
    "right of": ("to the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
    "between": ("between",),
    "next to": ("next to", "beside"),
}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
_FIRST_PHRASE = 0.6  # share of captions that word a relation in the first way
Draw = Callable[[], float]  # a random number in [0, 1)


class Thing(NamedTuple):
    """What a noun names, with what is told of it."""

    name: str
    colour: str = ""  # of the drawing
    size: str = ""  # "big" or "small"


class Wording(NamedTuple):
    """Random numbers in [0, 1) that decide how a statement is put; it says the same with all of them, but for the
    background.
    """

    phrase: float
    style: float
    verb: float


class Statement(NamedTuple):
    """What a caption says: `subject` is in `relation` to `objects`, on a background of this colour."""

    subject: tuple[Thing, ...]
    relation: str
    objects: tuple[Thing, ...]
    colour: str
    wording: Wording

    @property
    def tells_background(self) -> bool:
        """Whether the caption names the background; one in six doesn't."""
        return self.wording.style >= 0.16

    @property
    def caption(self) -> str:
        """The sentence; every fact but the background is always named."""
        first, second = noun(self.subject), noun(self.objects)
        phrase, style = phrase_of(self.relation, self.wording.phrase), self.wording.style
        if self.wording.verb < 0.25:
            first = f"{first} {'are' if len(self.subject) > 1 else 'is'}"
        if not self.tells_background:
            return f"{first} {phrase} {second}"
        if style < 0.60:
            return f"{first} {phrase} {second} {on_background(self.colour)}"
        if style < 0.85:
            return f"{first} {phrase} {second}, {self.colour} background"
        return f"{on_background(self.colour)}, {first} {phrase} {second}"


def phrase_of(relation: str, draw: float) -> str:
    """One of a relation's wordings."""
    return PHRASES[relation][0 if draw < _FIRST_PHRASE else -1]


def noun(things: Sequence[Thing]) -> str:
    """One or two things: "a dog", "two dogs", "a dog and an apple", "a big red heart"."""
    if len(things) == 2 and things[0] == things[1]:
        return f"two {_described(things[0], plural(things[0].name))}"
    return " and ".join(singular(_described(thing, thing.name)) for thing in things)


def _described(thing: Thing, name: str) -> str:
    return " ".join(filter(None, (thing.size, thing.colour, name)))


def on_background(colour: str) -> str:
    """ "on a blue background"."""
    return f"on {singular(colour)} background"


def statement(subject: list[str], relation: str, objects: list[str], colour: str, draw: Draw) -> Statement:
    """A statement about things without more than a name; takes three random numbers from `draw`."""
    wording = Wording(draw(), draw(), draw())
    return Statement(tuple(map(Thing, subject)), relation, tuple(map(Thing, objects)), colour, wording)
