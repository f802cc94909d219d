"""Which concepts may appear together: combinations of held-out scenes never occur in training.

A pair of concepts is held out by a hash of its two names. A training scene holds no held-out pair; in a held-out scene
every pair is held out.
"""

import hashlib
import itertools


class Combinations:
    """Held-out pairs, and the concept sets of held-out scenes.

    No set of a held-out scene equals or contains that of another, so a caption that names all its concepts fits one
    picture only.
    The sequence depends on the names, `held_out_fraction` and `max_sprites` alone: not on a seed, so that runs with
    different seeds are compared on the same scenes; and `sets[:n]` is the same for every n.
    """

    def __init__(self, names: tuple[str, ...], held_out_fraction: float, max_sprites: int) -> None:
        self.num_concepts = len(names)
        self.pairs = [
            pair
            for pair in itertools.combinations(range(len(names)), 2)
            if _share(*(names[i] for i in pair)) < held_out_fraction
        ]
        self._held_out = {*self.pairs, *((second, first) for first, second in self.pairs)}
        self.sets = self._held_out_sets(names, max_sprites)

    def held_out(self, first: int, second: int) -> bool:
        """Whether this unordered pair of concepts is kept out of training."""
        return (first, second) in self._held_out

    def _held_out_sets(self, names: tuple[str, ...], max_sprites: int) -> list[tuple[int, ...]]:
        neighbours: list[set[int]] = [set() for _ in names]
        for first, second in self.pairs:
            neighbours[first].add(second)
        triples = (
            [(a, b, c) for a, b in self.pairs for c in sorted(neighbours[a] & neighbours[b])]
            if max_sprites >= 3
            else []
        )

        def in_hash_order(sets):
            return sorted(sets, key=lambda members: _share("set", *(names[i] for i in members)))

        pairs, triples = iter(in_hash_order(self.pairs)), iter(in_hash_order(triples))
        taken, covered, sets = set(), set(), []  # pairs that are scenes of their own; pairs inside triples
        for position in itertools.count():
            chosen = None
            if position % 4 == 3:
                chosen = next((t for t in triples if not taken & set(itertools.combinations(t, 2))), None)
                covered.update(itertools.combinations(chosen, 2) if chosen else ())
            if chosen is None:
                chosen = next((p for p in pairs if p not in covered), None)
                taken.add(chosen)
            if chosen is None:
                return sets
            sets.append(chosen)


def _share(*words: str) -> float:
    """A hash of words in [0, 1), independent of the order of the words."""
    digest = hashlib.blake2b("|".join(sorted(words)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
