"""Short sentences about a scene in which one word tells: "a dog to the left of a cat".

A model that sees the sentence without the word ("left") can say it only by looking where the things are; the caption's
other words, its background and its length don't drown that signal.
"""

from collections.abc import Iterator

from alignlab.data.emoji.captions import OPPOSITE, Draw, Thing, noun, phrase_of
from alignlab.data.emoji.scenes import Scene
from alignlab.data.image_text.batches import Sentence


def short_sentences(scene: Scene, number: int, draw: Draw) -> list[Sentence]:
    """So many sentences that are true of the scene: what is where, both ways round, and what the caption tells of
    sizes and colours. They repeat where the scene doesn't offer as many, perhaps in other words.
    """
    sentences: list[Sentence] = []
    while len(sentences) < number:
        sentences += _all_once(scene, draw)
    return sentences[:number]


def _all_once(scene: Scene, draw: Draw) -> list[Sentence]:
    """Every sentence of the scene once; a relation's two directions follow each other."""
    several = [list(_both_ways(*pair, draw)) for pair in _related(scene)]
    several += [[_telling(thing)] for thing in (*scene.statement.subject, *scene.statement.objects) if thing.size]
    several += [[_telling(thing)] for thing in (*scene.statement.subject, *scene.statement.objects) if thing.colour]
    shuffled: list[Sentence] = []
    while several:
        shuffled += several.pop(int(draw() * len(several)))
    return shuffled


def _related(scene: Scene) -> Iterator[tuple[tuple[Thing, ...], str, tuple[Thing, ...]]]:
    """What stands where: of things in a row each to each, of two alike both at once."""
    names = [sprite.concept for sprite in scene.sprites]
    sides = [relation for relation in scene.relations if relation.name in OPPOSITE]
    if len(names) == 3 and names[0] == names[1]:
        yield (Thing(names[0]),) * 2, sides[0].name, (Thing(names[2]),)
        return
    for relation in sides:
        yield (Thing(names[relation.subject]),), relation.name, (Thing(names[relation.objects[0]]),)
    if len(sides) < len(scene.relations):  # a row: the ends too
        yield (Thing(names[0]),), sides[0].name, (Thing(names[2]),)


def _both_ways(first: tuple[Thing, ...], relation: str, second: tuple[Thing, ...], draw: Draw) -> Iterator[Sentence]:
    ways = [(first, relation, second), (second, OPPOSITE[relation], first)]
    for subject, name, objects in ways if draw() < 0.5 else reversed(ways):
        start, phrase = noun(subject), phrase_of(name, draw())
        word = next(word for word in ("left", "right", phrase) if word in phrase.split())
        place = len(start) + 1 + phrase.index(word)
        yield Sentence(f"{start} {phrase} {noun(objects)}", place, place + len(word))


def _telling(thing: Thing) -> Sentence:
    """What is told of a thing, its size or else its colour: "a big dog"."""
    told = thing.size or thing.colour
    text = noun((thing._replace(colour="") if thing.size else thing,))
    place = text.index(f" {told} ") + 1
    return Sentence(text, place, place + len(told))
