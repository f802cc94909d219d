"""English captions of scenes: "a red book to the left of two bees" and the like, from what is where."""

from collections.abc import Callable

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
Draw = Callable[[], float]  # a random number in [0, 1)


def noun(names: list[str]) -> str:
    """One or two things: "a dog", "two dogs", "a dog and an apple"."""
    if len(names) == 2 and names[0] == names[1]:
        return f"two {plural(names[0])}"
    return " and ".join(map(singular, names))


def on_background(colour: str) -> str:
    """ "on a blue background"."""
    return f"on {singular(colour)} background"


def caption(subject: list[str], relation: str, objects: list[str], colour: str, draw: Draw) -> str:
    """A sentence about `subject` being in `relation` to `objects`; takes three random numbers from `draw`.

    The background is left out in one caption of six; every other fact is named.
    """
    phrases = PHRASES[relation]
    phrase = phrases[0] if draw() < 0.6 else phrases[-1]
    first, second = noun(subject), noun(objects)
    style = draw()
    if draw() < 0.25:
        first = f"{first} {'are' if len(subject) > 1 else 'is'}"
    if style < 0.16:
        return f"{first} {phrase} {second}"
    if style < 0.60:
        return f"{first} {phrase} {second} {on_background(colour)}"
    if style < 0.85:
        return f"{first} {phrase} {second}, {colour} background"
    return f"{on_background(colour)}, {first} {phrase} {second}"
