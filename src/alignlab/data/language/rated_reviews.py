"""Texts with the ratings of 15 to 29 people each: 10,603 snippets of movie reviews and 3,696 of product reviews, built
in.

Legend: N texts, L = 9 levels of the scale (-4 to 4).
"""

import gzip
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal, TypeVar

import numpy as np

LEVELS = 9
Row = TypeVar("Row")


@dataclass(frozen=True)
class RatedTexts:
    """Texts and how people rated them."""

    texts: list[str]
    shares: np.ndarray  # (N, L) float32, share of a text's raters that gave level 0..8 (rating + 4)

    @property
    def means(self) -> np.ndarray:
        """(N,) mean rating, -4 to 4."""
        return self.shares @ np.arange(-4, 5, dtype=np.float32)

    def preference(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Share of raters that prefers text `first` over `second`.

        P(a > b) + P(a = b) / 2 for a rater of each, drawn independently (the probability of superiority): the texts
        were rated one by one, partly by different people. first, second: (...) int; (...) float32.
        """
        above = np.cumsum(self.shares, 1) - self.shares / 2  # (N, L): P(b below this level) + P(b on it) / 2
        return (self.shares[first] * above[second]).sum(-1)

    def part(self, split: str, seed: int = 0, val_share: float = 0.1) -> "RatedTexts":
        """The texts of "train" or "val": a hash of the text and `seed` decides, so no text is ever in both."""
        held_out = np.array([in_validation(text, seed, val_share) for text in self.texts], dtype=bool)
        chosen = np.flatnonzero(held_out if split == "val" else ~held_out)
        return RatedTexts([self.texts[i] for i in chosen], self.shares[chosen])

    def __len__(self) -> int:
        return len(self.texts)


def in_validation(text: str, seed: int, val_share: float) -> bool:
    """Whether a text is held out: a hash of its words in lower case, salted with `seed`."""
    words = " ".join(text.lower().split())
    digest = hashlib.blake2b(f"{seed}:{words}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < val_share * 2**64


def of_split(
    rows: Iterable[Row], split: Literal["train", "val"], text_of: Callable[[Row], str], seed: int, val_share: float
) -> list[Row]:
    """The rows of one side, as `in_validation` says of each one's text."""
    return [row for row in rows if in_validation(text_of(row), seed, val_share) == (split == "val")]


@cache
def rated_reviews(name: str = "movie_reviews") -> RatedTexts:
    """The built-in file `name` ("movie_reviews" or "product_reviews"); see NOTICE.md for where it comes from."""
    content = gzip.decompress(files("alignlab.data.language").joinpath(f"{name}.tsv.gz").read_bytes()).decode()
    rows = [line.split("\t") for line in content.removesuffix("\n").split("\n")]
    counts = np.array([np.bincount(np.frombuffer(r.encode(), np.uint8) - ord("0"), minlength=LEVELS) for r, _ in rows])
    # Two typewriter apostrophes are a quotation mark.
    texts = [text.replace("''", '"') for _, text in rows]
    return RatedTexts(texts, (counts / counts.sum(1, keepdims=True)).astype(np.float32))
