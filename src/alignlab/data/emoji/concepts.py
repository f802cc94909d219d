"""The things that emoji scenes are made of: names and drawings of about 120 concepts.

A drawing is a Twemoji picture, written as its code points in hexadecimal joined by "-". In the table below a trailing
"*" stands for
the whole family: every skin tone, gender and hair variant of that drawing. Drawings behind "|" are held out of
training, and so are the members of "*" families in the tones of `HELD_OUT_TONES`: they are the unseen drawings of
known concepts.
"""

import functools
from typing import NamedTuple

from alignlab.data.emoji.drawings import HELD_OUT_TONES, drawing_families, has_tone

# name: drawings | held-out drawings. Chosen to be told apart at 20 pixels, with an English name of one or two words
# that has a plural.
_TABLE = """
dog: 1f415 1f436 1f9ae | 1f429
cat: 1f431 1f408 1f63a 1f638 | 1f63c
tiger: 1f405 1f42f
cow: 1f404 1f42e
pig: 1f416 1f437
rabbit: 1f407 1f430
horse: 1f40e 1f434
monkey: 1f435 1f412 1f648 1f64a | 1f649
bear: 1f43b
panda: 1f43c
koala: 1f428
fox: 1f98a
lion: 1f981
elephant: 1f418
giraffe: 1f992
zebra: 1f993
camel: 1f42a | 1f42b
penguin: 1f427
chick: 1f424 1f425 | 1f423
owl: 1f989
duck: 1f986
flamingo: 1f9a9
frog: 1f438
turtle: 1f422
snake: 1f40d
dinosaur: 1f995 1f996
whale: 1f433 | 1f40b
octopus: 1f419
crab: 1f980
fish: 1f41f 1f420 | 1f421
butterfly: 1f98b
bee: 1f41d
ladybug: 1f41e
snail: 1f40c
spider: 1f577
unicorn: 1f984
tree: 1f333
palm tree: 1f334
cactus: 1f335
rose: 1f339
sunflower: 1f33b
mushroom: 1f344 | 1f344-200d-1f7eb
apple: 1f34e | 1f34f
banana: 1f34c
watermelon: 1f349
strawberry: 1f353
pineapple: 1f34d
lemon: 1f34b
carrot: 1f955
avocado: 1f951
eggplant: 1f346
pizza: 1f355
burger: 1f354
hot dog: 1f32d
taco: 1f32e
cookie: 1f36a
donut: 1f369
ice cream: 1f366 | 1f368
cake: 1f382 | 1f370
lollipop: 1f36d
pretzel: 1f968
car: 1f697 | 1f699
bus: 1f68c
police car: 1f693
fire truck: 1f692
tractor: 1f69c
bicycle: 1f6b2
train: 1f682 1f684 1f686 | 1f685
airplane: 2708 | 1f6e9
rocket: 1f680
sailboat: 26f5
soccer ball: 26bd
basketball: 1f3c0
guitar: 1f3b8
drum: 1f941
trumpet: 1f3ba
umbrella: 2602 26f1 | 2614
clock: 1f550 1f552 1f553 1f555 1f557 1f558 1f55a 1f55c 1f561 1f564 | 1f551 1f556 1f559 1f562 1f565
book: 1f4d5 1f4d8 1f4d7 | 1f4d9
key: 1f511 | 1f5dd
lock: 1f512 | 1f513
bell: 1f514
light bulb: 1f4a1
camera: 1f4f7 | 1f4f8
television: 1f4fa
chair: 1fa91
house: 1f3e0 | 1f3e1
castle: 1f3f0
tent: 26fa
globe: 1f30d 1f30e | 1f30f
moon: 1f319 1f31b | 1f31c
star: 2b50 | 1f31f
rainbow: 1f308
snowman: 26c4 | 2603
heart: 2764 1f499 1f49a 1f9e1 | 1f49b 1f49c
balloon: 1f388
gift: 1f381
crown: 1f451
ring: 1f48d
top hat: 1f3a9
shirt: 1f455
dress: 1f457
backpack: 1f392
trophy: 1f3c6
medal: 1f947 1f948 | 1f949
robot: 1f916
ghost: 1f47b
skull: 1f480
pumpkin: 1f383
teddy bear: 1f9f8
thumbs up: 1f44d*
fist: 270a*
raised hand: 270b*
victory sign: 270c*
ear: 1f442*
nose: 1f443*
foot: 1f9b6*
baby: 1f476*
cook: 1f9d1-200d-1f373*
astronaut: 1f9d1-200d-1f680*
firefighter: 1f9d1-200d-1f692*
wizard: 1f9d9*
mermaid: 1f9dc*
surfer: 1f3c4*
princess: 1f478*
"""

_IRREGULAR = {"foot": "feet", "fish": "fish", "thumbs up": "thumbs up"}
_ONE_VOWEL_SOUND = ("unicorn",)  # written with a vowel, spoken with a consonant


class Concept(NamedTuple):
    """A thing with a name and one or more drawings."""

    name: str
    drawings: tuple[str, ...]  # for training
    held_out: tuple[str, ...]  # never seen in training; may be empty


@functools.cache
def concepts() -> tuple[Concept, ...]:
    """All concepts of the built-in scenes, in the order of the table."""
    return tuple(_concept(line) for line in _TABLE.strip().splitlines())


def _concept(line: str) -> Concept:
    name, _, drawings = line.partition(": ")
    seen, _, unseen = drawings.partition(" | ")
    train, held_out = [], unseen.split()
    for code in seen.split():
        members = drawing_families()[code.removesuffix("*")] if code.endswith("*") else (code,)
        for member in members:
            (held_out if code.endswith("*") and has_tone(member, HELD_OUT_TONES) else train).append(member)
    return Concept(name, tuple(train), tuple(held_out))


def singular(name: str) -> str:
    """The name with its indefinite article: "an apple"."""
    vowel = name[0] in "aeiou" and name not in _ONE_VOWEL_SOUND
    return f"{'an' if vowel else 'a'} {name}"


def plural(name: str) -> str:
    """The plural of a concept's name: "two cherries" without the number."""
    if name in _IRREGULAR:
        return _IRREGULAR[name]
    if name.endswith(("s", "x", "ch", "sh")):
        return name + "es"
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    return name + "s"
