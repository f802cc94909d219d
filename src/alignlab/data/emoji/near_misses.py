"""Families of scenes: the same things with one fact changed, in the picture and in its caption.

A scene and its near miss differ by one fact that both captions tell, so each caption is true of its own picture and
false of the other, by construction; whatever else a scene is made of (drawings, background, wording) stays.
"""

from collections.abc import Iterable, Sequence

from alignlab.data.emoji.backgrounds import COLOUR_NAMES
from alignlab.data.emoji.captions import OPPOSITE, Draw, Statement, Thing
from alignlab.data.emoji.layouts import Place, big_and_small, two_sides
from alignlab.data.emoji.scenes import EmojiScenes, Relation, Scene, Sprite

# What may differ: the relation turned round, things in each other's place, one or two of them, the background's colour,
# which of two is the big one, the colour of a drawing. The last two are told only where they are among the facts.
FACTS = ("relations", "which_is_where", "counts", "backgrounds", "sizes", "colours")
PLAIN_FACTS = FACTS[:4]
# Drawings of one thing that differ in colour alone.
_COLOURS = {
    "heart": {"2764": "red", "1f499": "blue", "1f49a": "green", "1f9e1": "orange"},
    "book": {"1f4d5": "red", "1f4d8": "blue", "1f4d7": "green"},
}
_TRANSPOSED = {"left of": "above", "right of": "below", "above": "left of", "below": "right of"}
_SHARE_SIZED, _SHARE_COLOURED = 0.3, 0.7  # of the scenes that allow it
BIG, SMALL = 0.55, 0.3  # longer side of a sprite / side of the picture, where sizes are told


class NearMisses:
    """Changes facts of scenes.

    Args:
        scenes: made these scenes.
        facts: of `FACTS`, that may be changed.

    Raises:
        ValueError: a fact that doesn't exist, twice the same, or none.
    """

    def __init__(self, scenes: EmojiScenes, facts: Sequence[str] = PLAIN_FACTS) -> None:
        wrong = [fact for fact in facts if fact not in FACTS]
        if wrong or not facts or len(set(facts)) < len(facts):
            what = f"there is no {wrong[0]!r}" if wrong else "it must name each once"
            raise ValueError(f"facts is {list(facts)}; {what}: {', '.join(FACTS)}")
        self.scenes, self.facts = scenes, tuple(facts)
        self._number = {concept.name: number for number, concept in enumerate(scenes.concepts)}
        self._changes = dict(
            zip(
                FACTS,
                (
                    lambda scene, _: self.turned(scene),
                    self._exchanged,
                    self._recounted,
                    self._regrounded,
                    self._resized,
                    self._repainted,
                ),
                strict=True,
            )
        )

    def detailed(self, scene: Scene, draw: Draw) -> Scene:
        """The scene with sizes and colours told, in a part of the scenes and only where they are among the facts."""
        if "sizes" in self.facts and draw() < _SHARE_SIZED:
            scene = self.sized(scene, draw)
        if "colours" in self.facts and draw() < _SHARE_COLOURED:
            scene = self.coloured(scene)
        return scene

    def near_miss(self, scene: Scene, draw: Draw) -> Scene:
        """The scene with one of the facts changed that it tells; the scene itself if it tells none of them."""
        return next(self._near_misses(scene, draw), scene)

    def told_apart(self, scene: Scene, draw: Draw, lest: str) -> Scene:
        """A near miss that differs. Raises ValueError, with what can't be done then, where the scene tells none of the
        facts.
        """
        other = self.near_miss(scene, draw)
        if other is scene:
            raise ValueError(f"facts is {list(self.facts)}; {scene.caption!r} tells none of them, so {lest}")
        return other

    def foils(self, scene: Scene, number: int, draw: Draw) -> list[str]:
        """Captions that are false of the scene by one fact, of different facts as long as there are such.

        Raises ValueError where a scene tells none of the facts.
        """
        captions: list[str] = []
        while len(captions) < number:
            before = len(captions)
            captions += [changed.caption for changed in self._near_misses(scene, draw)]
            if len(captions) == before:
                raise ValueError(
                    f"facts is {list(self.facts)}; {scene.caption!r} tells none of them, so it has no foil: add "
                    + ("backgrounds" if scene.statement.tells_background else "counts")
                )
        return captions[:number]

    def change(self, scene: Scene, fact: str, draw: Draw) -> Scene | None:
        """The scene with this fact changed; None if the caption doesn't tell it."""
        return self._changes[fact](scene, draw)

    def _near_misses(self, scene: Scene, draw: Draw) -> Iterable[Scene]:
        left = list(self.facts)
        while left:
            changed = self.change(scene, left.pop(int(draw() * len(left))), draw)
            if changed is not None:
                yield changed

    def turned(self, scene: Scene) -> Scene | None:
        """ "left of" becomes "right of", everything in its mirrored place; None if that isn't told."""
        told = scene.statement
        if told.relation not in OPPOSITE:
            return None
        return self._mirrored(scene)._replace(statement=told._replace(relation=OPPOSITE[told.relation]))

    def transposed(self, scene: Scene) -> Scene:
        """ "left of" becomes "above", everything in the place with x and y exchanged."""
        places = (self._place(sprite) for sprite in scene.sprites)
        places = (place._replace(x=place.y, y=place.x) for place in places)
        sprites = (self.scenes.sprite(p, s.drawing, s.rotation) for p, s in zip(places, scene.sprites, strict=True))
        relations = (
            relation._replace(name=_TRANSPOSED.get(relation.name, relation.name)) for relation in scene.relations
        )
        told = scene.statement._replace(relation=_TRANSPOSED.get(scene.statement.relation, scene.statement.relation))
        return scene._replace(sprites=tuple(sprites), relations=tuple(relations), statement=told)

    def _exchanged(self, scene: Scene, draw: Draw) -> Scene | None:
        """Two things stand in each other's place; two dogs and a cat exchange their sides."""
        told, sprites = scene.statement, scene.sprites
        if told.relation == "between":
            return self._swapped(scene, 1, 0 if draw() < 0.5 else 2)
        if told.relation not in OPPOSITE:
            return None
        if len(sprites) == 3 and sprites[0].concept == sprites[1].concept:
            return self._mirrored(scene)._replace(statement=told._replace(subject=told.objects, objects=told.subject))
        return self._swapped(scene, int(draw() * (len(sprites) - 1)), len(sprites) - 1)

    def _recounted(self, scene: Scene, draw: Draw) -> Scene | None:
        """One becomes two or two become one."""
        sprites = scene.sprites
        if self.scenes.max_sprites < 3 or any(thing.size or thing.colour for thing in _things(scene.statement)):
            return None
        if len(sprites) == 2:
            return self._doubled(scene, draw)
        if sprites[0].concept != sprites[1].concept:
            return None
        one, two = (self._place(sprite) for sprite in sprites[:2])
        upright = _is_upright(scene)
        middle = (one.x + two.x) / 2 if upright else (one.y + two.y) / 2
        alone = one._replace(x=middle) if upright else one._replace(y=middle)
        alone = self.scenes.sprite(alone, sprites[0].drawing, sprites[0].rotation)
        return scene._replace(
            sprites=(alone, sprites[2]),
            relations=(Relation(0, scene.relations[0].name, (1,)),),
            statement=_with_number(scene.statement, sprites[0].concept, 1),
        )

    def _doubled(self, scene: Scene, draw: Draw) -> Scene:
        which = int(draw() * 2)
        relation = scene.relations[0].name  # of the first to the second
        relation = OPPOSITE[relation] if which else relation
        doubled, single = scene.sprites[which], scene.sprites[1 - which]
        numbers = [self._number[sprite.concept] for sprite in (doubled, single)]
        places, first = two_sides(draw, [numbers[0]] * 2, numbers[1], _is_upright(scene))
        drawings = self.scenes.concepts[numbers[0]].drawings
        other = drawings[int(draw() * len(drawings))]
        sprites = tuple(
            self.scenes.sprite(place, drawing, like.rotation)
            for place, drawing, like in zip(
                places, (doubled.drawing, other, single.drawing), (doubled, doubled, single), strict=True
            )
        )
        changed = scene._replace(
            sprites=sprites,
            relations=(Relation(0, relation, (2,)), Relation(1, relation, (2,))),
            statement=_with_number(scene.statement, doubled.concept, 2),
        )
        if first == (relation in ("left of", "above")):
            return changed
        return self._mirrored(changed)._replace(relations=changed.relations)

    def _regrounded(self, scene: Scene, draw: Draw) -> Scene | None:
        """Another colour of the background."""
        if not scene.statement.tells_background:
            return None
        colour = _other(COLOUR_NAMES, scene.background, draw)
        return scene._replace(background=colour, statement=scene.statement._replace(colour=colour))

    def sized(self, scene: Scene, draw: Draw) -> Scene:
        """Of two things one big and one small, as the caption then tells; any other scene as it is."""
        if len(scene.sprites) != 2:
            return scene
        return self._with_sizes(scene, BIG if draw() < 0.5 else SMALL, draw)

    def _resized(self, scene: Scene, draw: Draw) -> Scene | None:
        """The big thing is the small one."""
        if not any(thing.size for thing in _things(scene.statement)):
            return None
        return self._with_sizes(scene, scene.sprites[1].scale, draw)

    def _with_sizes(self, scene: Scene, scale: float, draw: Draw) -> Scene:
        scales = {sprite.concept: s for sprite, s in zip(scene.sprites, (scale, BIG + SMALL - scale), strict=True)}
        name, upright = scene.relations[0].name, _is_upright(scene)
        members = [(self._number[concept], scales[concept]) for concept in scales]
        places = big_and_small(draw, members, upright, first=name in ("left of", "above"))
        sprites = (self.scenes.sprite(p, s.drawing, s.rotation) for p, s in zip(places, scene.sprites, strict=True))
        size = {concept: "big" if s == BIG else "small" for concept, s in scales.items()}
        told = _each(scene.statement, lambda thing: thing._replace(size=size[thing.name]))
        return scene._replace(sprites=tuple(sprites), statement=told)

    def coloured(self, scene: Scene) -> Scene:
        """The scene whose caption tells colours of drawings, where a thing comes in several and stands alone."""
        drawings = {sprite.concept: sprite.drawing for sprite in scene.sprites}
        if len(drawings) < len(scene.sprites):
            return scene
        colours = {name: _COLOURS.get(name, {}).get(drawing, "") for name, drawing in drawings.items()}
        told = _each(scene.statement, lambda thing: thing._replace(colour=colours[thing.name]))
        return scene._replace(statement=told)

    def _repainted(self, scene: Scene, draw: Draw) -> Scene | None:
        """Another drawing of a thing, of another colour."""
        chosen = next((thing for thing in _things(scene.statement) if thing.colour), None)
        if chosen is None:
            return None
        drawings = {colour: drawing for drawing, colour in _COLOURS[chosen.name].items()}
        colour = _other(tuple(drawings), chosen.colour, draw)
        sprites = tuple(
            self.scenes.sprite(self._place(sprite), drawings[colour], sprite.rotation)
            if sprite.concept == chosen.name
            else sprite
            for sprite in scene.sprites
        )
        told = _each(scene.statement, lambda thing: thing._replace(colour=colour) if thing == chosen else thing)
        return scene._replace(sprites=sprites, statement=told)

    def _swapped(self, scene: Scene, one: int, other: int) -> Scene:
        """Each of two things in the other's place, as large as what stood there."""
        sprites = list(scene.sprites)
        for here, there in ((one, other), (other, one)):
            comes = scene.sprites[there]
            place = self._place(scene.sprites[here])._replace(concept=self._number[comes.concept])
            sprites[here] = self.scenes.sprite(place, comes.drawing, comes.rotation)
        names = {scene.sprites[i].concept: scene.sprites[j].concept for i, j in ((one, other), (other, one))}
        things = {thing.name: thing for thing in _things(scene.statement)}

        def exchange(thing: Thing) -> Thing:
            comes = things[names.get(thing.name, thing.name)]
            return comes._replace(size=thing.size)  # sizes are those of places

        return scene._replace(sprites=tuple(sprites), statement=_each(scene.statement, exchange))

    def _mirrored(self, scene: Scene) -> Scene:
        """Everything on the other side along the relation's axis; drawings stay as they are."""
        size, upright = self.scenes.image_size, _is_upright(scene)

        def mirror(sprite: Sprite) -> Sprite:
            left, top, right, bottom = sprite.box
            box = (left, size - bottom, right, size - top) if upright else (size - right, top, size - left, bottom)
            return sprite._replace(box=box)

        relations = (relation._replace(name=OPPOSITE.get(relation.name, relation.name)) for relation in scene.relations)
        return scene._replace(sprites=tuple(map(mirror, scene.sprites)), relations=tuple(relations))

    def _place(self, sprite: Sprite) -> Place:
        left, top, right, bottom = sprite.box
        size = 2 * self.scenes.image_size
        return Place(self._number[sprite.concept], sprite.scale, (left + right) / size, (top + bottom) / size)


def _is_upright(scene: Scene) -> bool:
    return any(relation.name in ("above", "below") for relation in scene.relations)


def _things(told: Statement) -> tuple[Thing, ...]:
    return (*told.subject, *told.objects)


def _each(told: Statement, change: object) -> Statement:
    return told._replace(subject=tuple(map(change, told.subject)), objects=tuple(map(change, told.objects)))


def _with_number(told: Statement, name: str, number: int) -> Statement:
    """The statement about one or two things of a name."""
    subject, objects = ((side[0],) * number if side[0].name == name else side for side in (told.subject, told.objects))
    return told._replace(subject=subject, objects=objects)


def _other(choices: Sequence[str], present: str, draw: Draw) -> str:
    left = [choice for choice in choices if choice != present]
    return left[int(draw() * len(left))]
