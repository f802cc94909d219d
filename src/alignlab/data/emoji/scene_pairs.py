"""Emoji scenes as training pairs, retrieval pictures and zero-shot classification."""

import functools
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from alignlab.data.emoji.backgrounds import COLOUR_NAMES, NUM_TEXTURES, paint_background
from alignlab.data.emoji.captions import on_background
from alignlab.data.emoji.concepts import plural, singular
from alignlab.data.emoji.drawings import PatchBank, paste
from alignlab.data.emoji.held_out_families import arrangements, foil_rows
from alignlab.data.emoji.near_misses import FACTS, PLAIN_FACTS, NearMisses
from alignlab.data.emoji.phrases import Phrase, grounded_phrases
from alignlab.data.emoji.scenes import ROTATIONS, EmojiScenes, Scene
from alignlab.data.emoji.sentences import short_sentences
from alignlab.data.image_text.batches import FoilSet, Pair, Sentence, ZeroShotPictures

ARRANGEMENTS = "arrangements"  # a split
PROMPT_COLOURS = ("white", "black", "blue", "green")
_NEAR_MISS, _SENTENCES, _FOILS, _NOISE, _BOXES = 1, 2, 3, 4, 5  # purposes of random numbers
_WRONG_BOXES = 8  # of a picture, among which its things are to be found
_NUM_VOCABULARY_CAPTIONS = 4000  # enough for every word of the grammar; the names are added besides


class EmojiScenePairs:
    """The source behind `data=emoji_scenes`.

    Args:
        image_size: height and width in pixels.
        num_train: scenes in an epoch; every epoch has new ones.
        num_val: held-out scenes.
        num_val_foils: rows of each held-out set of near misses; None: as many as there are held-out scenes.
        near_misses: share of the training pairs 2k + 1 that are a near miss of pair 2k, so that a batch holds both:
            the same things with one of the facts changed.
        near_misses_from: the pair of the whole training (batch size x step) from which they come: towers that can't
            tell them apart learn names faster without.
        sentences: short sentences a picture, each with its telling word marked (`short_sentences`).
        foils: captions a picture that are false of it by one of the facts.
        noise: share of the training pairs whose text, sentences and foils included, is another scene's.
        facts: what near misses and foils change, see `near_misses.FACTS`; sizes and colours are told only then.
        settings: see `EmojiScenes`, which makes pictures and captions.

    Raises:
        ValueError: more held-out scenes than there are combinations for, a share outside [0, 1], a number below 0, an
            unknown fact.
    """

    def __init__(
        self,
        image_size: int,
        *,
        num_train: int = 100_000,
        num_val: int = 500,
        num_val_foils: int | None = None,
        near_misses: float = 0.0,
        near_misses_from: int = 0,
        sentences: int = 0,
        foils: int = 0,
        noise: float = 0.0,
        facts: Sequence[str] = PLAIN_FACTS,
        **settings: Any,
    ) -> None:
        self.scenes = EmojiScenes(image_size, **settings)
        if not 1 <= num_val <= self.scenes.num_val:
            raise ValueError(
                f"num_val is {num_val}; with held_out_fraction and max_sprites as they are it must be 1 to "
                f"{self.scenes.num_val}"
            )
        for key, share in (("near_misses", near_misses), ("noise", noise)):
            if not 0 <= share <= 1:
                raise ValueError(f"{key} is {share}; it must lie in [0, 1]")
        for key, value, least in (
            ("near_misses_from", near_misses_from, 0),
            ("sentences", sentences, 0),
            ("foils", foils, 0),
            ("num_val_foils", 1 if num_val_foils is None else num_val_foils, 1),
        ):
            if value < least:
                raise ValueError(f"{key} is {value}; it must be at least {least}")
        self.num_train, self.num_val, self.num_val_foils = num_train, num_val, num_val_foils or num_val
        self.near_misses, self.near_misses_from = near_misses, near_misses_from
        self.sentences, self.foils, self.noise = sentences, foils, noise
        self.families = NearMisses(self.scenes, facts)

    def train_pair(self, serial: int) -> Pair:
        """Training scene number `serial`; it never comes again in a later epoch."""
        scene, source = self.train_scene(serial), self._text_of(serial)
        told = scene if source == serial else self.train_scene(source)
        return Pair(self.scenes.render(scene), told.caption, serial, *self._told(told, source, "train"))

    def _text_of(self, serial: int) -> int:
        """The scene whose text a training pair has: its own, or with `noise` any other."""
        chance = self.scenes.draws(serial, purpose=_NOISE)
        if self.noise == 0 or chance() >= self.noise:
            return serial
        return (serial + 1 + int(chance() * (self.num_train - 1))) % self.num_train

    def train_scene(self, serial: int) -> Scene:
        """A training scene of its own, or the near miss of the one before."""
        chance = self.scenes.draws(serial, purpose=_NEAR_MISS)
        if serial % 2 and serial >= self.near_misses_from and chance() < self.near_misses:
            return self.families.near_miss(self.train_scene(serial - 1), chance)
        return self.families.detailed(self.scenes.scene(serial), chance)

    def scene(self, index: int, split: str) -> Scene:
        """A picture's scene; "arrangements" is a split of held-out pairs of things, each arranged in four ways."""
        return self._arrangements[index] if split == ARRANGEMENTS else self.scenes.scene(index, split)

    def told_of(self, index: int, split: str) -> tuple[Sequence[Sentence], Sequence[str]]:
        """Sentences and foils of a picture; nothing where they weren't asked for."""
        return self._told(self.scene(index, split), index, split)

    def _told(self, scene: Scene, index: int, split: str) -> tuple[Sequence[Sentence], Sequence[str]]:
        return (
            short_sentences(scene, self.sentences, self.scenes.draws(index, split, _SENTENCES)),
            self.families.foils(scene, self.foils, self.scenes.draws(index, split, _FOILS)),
        )

    def num_pictures(self, split: str) -> int:
        if split == ARRANGEMENTS:
            return len(self._arrangements)
        if split not in (numbers := {"train": self.num_train, "val": self.num_val}):
            raise ValueError(f"there is no split {split!r} of emoji scenes, only {[*numbers, ARRANGEMENTS]}")
        return numbers[split]

    def picture(self, index: int, split: str) -> np.ndarray:
        return self.scenes.render(self.scene(index, split))

    def captions_of(self, index: int, split: str) -> list[str]:
        return [self._arrangements[index].caption if split == ARRANGEMENTS else self.scenes.caption(index, split)]

    def grounded_phrases(self, index: int, split: str) -> list[Phrase]:
        """The nouns of a picture's caption with the boxes of what they name."""
        return grounded_phrases(self.scene(index, split))

    def candidate_boxes(self, index: int, split: str) -> list[tuple[int, int, int, int]]:
        """The boxes of a picture's things, and some at random of the sizes that things have."""
        draw, size = self.scenes.draws(index, "train" if split == "train" else "val", _BOXES), self.scenes.image_size
        boxes = [sprite.box for sprite in self.scene(index, split).sprites]
        for _ in range(_WRONG_BOXES):
            width, height = (round((0.35 + 0.2 * draw()) * size) for _ in range(2))
            left, top = (int(draw() * (size - side + 1)) for side in (width, height))
            boxes.append((left, top, left + width, top + height))
        return boxes

    @functools.cached_property
    def _arrangements(self) -> list[Scene]:
        return arrangements(self.families, self.num_val // 4)

    def foil_sets(self, max_rows: int | None = None) -> dict[str, FoilSet]:
        """Held-out scenes with their near misses, by the fact that differs; sizes and colours where they are told."""
        number = min(self.num_val_foils, max_rows or self.num_val_foils)
        every = NearMisses(self.scenes, FACTS)
        wanted = [fact for fact in FACTS if fact in PLAIN_FACTS or fact in self.families.facts]
        rows = {fact: foil_rows(every, fact, number) for fact in wanted}
        return {fact: self._foil_set(chosen) for fact, chosen in rows.items() if chosen}

    def _foil_set(self, rows: list[tuple[Scene, Scene]]) -> FoilSet:
        captions = [(one.caption, other.caption) for one, other in rows]
        return FoilSet(captions, lambda row, side: self.scenes.render(rows[row][side]))

    def vocabulary_texts(self) -> Iterator[str]:
        """Captions, and what a sample of captions might lack."""
        yield from self.scenes.captions(_NUM_VOCABULARY_CAPTIONS)
        for concept in self.scenes.concepts:
            yield f"{singular(concept.name)} and two {plural(concept.name)}"
        yield from map(on_background, COLOUR_NAMES)
        if set(self.families.facts) - set(PLAIN_FACTS):  # their words; without them ids are as they ever were
            yield " ".join(("big", "small", *COLOUR_NAMES))

    def held_out_texts(self) -> Iterator[str]:
        return (self.scenes.caption(index, "val") for index in range(self.num_val))

    def zero_shot_pictures(self) -> dict[str, ZeroShotPictures]:
        """Single drawings named among all concepts: "variants" has drawings that training never shows, "known" those
        of the training.
        """
        known = [(label, drawing) for label, concept in enumerate(self.scenes.concepts) for drawing in concept.drawings]
        unseen = [
            (label, drawing) for label, concept in enumerate(self.scenes.concepts) for drawing in concept.held_out
        ]
        return {"variants": self._single_drawings(unseen, 6), "known": self._single_drawings(known, 2)}

    def _single_drawings(self, drawings: list[tuple[int, str]], repeats: int) -> ZeroShotPictures:
        drawings = [item for item in drawings for _ in range(repeats)]
        names = [concept.name for concept in self.scenes.concepts]
        prompts = [
            [singular(name), *(f"{singular(name)} {on_background(colour)}" for colour in PROMPT_COLOURS)]
            for name in names
        ]
        return ZeroShotPictures(
            names,
            prompts,
            [label for label, _ in drawings],
            SingleDrawings([drawing for _, drawing in drawings], self.scenes.image_size),
        )


class SingleDrawings:
    """Picture i: drawing i at a random place on a random background; a function of i and the drawing."""

    def __init__(self, drawings: list[str], image_size: int) -> None:
        self.drawings, self.image_size = drawings, image_size
        self._bank = PatchBank()

    def __call__(self, index: int) -> np.ndarray:
        draw, size = random.Random(index).random, self.image_size
        canvas = np.empty((size, size, 3), dtype=np.uint8)
        shade = (2 * draw() - 1, 2 * draw() - 1, 2 * draw() - 1)
        paint_background(canvas, COLOUR_NAMES[int(draw() * len(COLOUR_NAMES))], int(draw() * NUM_TEXTURES), shade)
        patch = self._bank.patch(
            self.drawings[index], round((0.45 + 0.15 * draw()) * size), ROTATIONS[int(draw() * len(ROTATIONS))]
        )
        height, width = patch.keep.shape[:2]
        paste(canvas, patch, int(draw() * (size - width + 1)), int(draw() * (size - height + 1)))
        return canvas
