"""The built-in reviews as rows: texts to learn to write, groups of texts that are compared by their ratings, good and
bad ones, and openings to go on with.
"""

import numpy as np
from torch.utils.data import DataLoader

from alignlab.data.language.batches import (
    ComparisonRows,
    Preferences,
    PromptRows,
    RatedRows,
    Split,
    TextRows,
    TokenStore,
)
from alignlab.data.language.labelled import LabelledRows
from alignlab.data.language.preference_texts import opening
from alignlab.data.language.rated_reviews import RatedTexts, rated_reviews
from alignlab.data.language.rendering import Renderer
from alignlab.data.loaders import whole_batches


class _Movies:
    """Movie reviews, divided by a hash of the text; see `RatedTexts.part`."""

    def __init__(self, split_seed: int, val_share: float) -> None:
        self.split_seed, self.val_share = split_seed, val_share

    def rated_texts(self, split: Split) -> RatedTexts:
        """The texts of a split with their ratings."""
        return rated_reviews().part(split, self.split_seed, self.val_share)


class MovieReviews(_Movies):
    """Movie reviews to continue, for SFT.

    Args:
        pack: training rows are `max_length` tokens made of several reviews; else one review each, grouped by length.
        settings: see `LanguageDataModule`.
    """

    def __init__(self, *, pack: bool = False, **settings: float) -> None:
        super().__init__(**settings)
        self._pack = pack

    def rows(self, split: Split, renderer: Renderer, seed: int) -> TextRows:
        store = _store(self.rated_texts(split), renderer)
        return TextRows(store, seed, renderer.max_length if self._pack and split == "train" else None)


class MoviePreferences(_Movies):
    """Movie reviews in groups of which every two are compared by their ratings; new groups in every epoch.

    Args:
        group_size: reviews of a group; a batch's size counts groups.
        product_reviews: trains on the ratings of product reviews besides.
        settings: see `LanguageDataModule`.

    Raises:
        ValueError: a group of fewer than 2.
    """

    def __init__(self, *, group_size: int = 2, product_reviews: bool = False, **settings: float) -> None:
        super().__init__(**settings)
        if group_size < 2:
            raise ValueError(f"group_size is {group_size}; a comparison needs at least 2 texts")
        self._group_size, self._product_reviews = group_size, product_reviews

    def rated_texts(self, split: Split) -> RatedTexts:
        """The texts of a split with their ratings, in the order of `RatedBatch.index`."""
        texts = super().rated_texts(split)
        if self._product_reviews and split == "train":
            more = rated_reviews("product_reviews")
            texts = RatedTexts(texts.texts + more.texts, np.concatenate([texts.shares, more.shares]))
        return texts

    def rated_batches(self, split: Split, renderer: Renderer, batch_size: int) -> DataLoader:
        """All texts of a split once, for exact statistics over all pairs; every rank sees all of them."""
        rows = RatedRows(_store(self.rated_texts(split), renderer))
        shortest_first = np.argsort(rows.store.lengths, kind="stable").tolist()
        size = 2 * batch_size * self._group_size
        return whole_batches(rows, [shortest_first[i : i + size] for i in range(0, len(rows), size)])

    def rows(self, split: Split, renderer: Renderer, seed: int) -> ComparisonRows:
        rated = self.rated_texts(split)
        means, size = rated.means, self._group_size

        def groups_of(epoch: int) -> np.ndarray:
            order = np.random.default_rng([seed, epoch]).permutation(len(rated))
            return order[: len(order) // size * size].reshape(-1, size)

        def preferences(first: np.ndarray, second: np.ndarray) -> Preferences:
            return Preferences(rated.preference(first, second), means[first] - means[second])

        return ComparisonRows(_store(rated, renderer), groups_of, preferences, seed)


class MovieLabels(_Movies):
    """Movie reviews with a mean rating beyond `least` as good or bad texts, for KTO.

    Args:
        least: mean rating, of -4 to 4, of a good review at least, of a bad one at most its negative.
        settings: see `LanguageDataModule`.

    Raises:
        ValueError: `least` is negative, or no review is as good as that.
    """

    def __init__(self, *, least: float = 0.5, **settings: float) -> None:
        super().__init__(**settings)
        if not 0 <= least < 3:
            raise ValueError(f"least is {least}; it must be at least 0 and below 3, ratings go from -4 to 4")
        self.least = least

    def rows(self, split: Split, renderer: Renderer, seed: int) -> LabelledRows:
        rated = self.rated_texts(split)
        kept = np.flatnonzero(np.abs(rated.means) >= max(self.least, 1e-6))
        rated = RatedTexts([rated.texts[i] for i in kept], rated.shares[kept])
        return LabelledRows(_store(rated, renderer), rated.means > 0, seed, renderer.max_length)


class MoviePrompts(_Movies):
    """Openings of movie reviews, for PPO. The number of words is a hash of the text.

    Args:
        min_words: fewest words of an opening, as `max_words` the most.
        settings: see `LanguageDataModule`.

    Raises:
        ValueError: limits that no number of words fits.
    """

    def __init__(self, *, min_words: int = 2, max_words: int = 6, **settings: float) -> None:
        super().__init__(**settings)
        if not 0 <= min_words <= max_words:
            raise ValueError(f"min_words is {min_words}; it must be 0 to max_words={max_words}")
        self._words = (min_words, max_words)

    def rows(self, split: Split, renderer: Renderer, seed: int) -> PromptRows:
        texts = self.rated_texts(split).texts
        openings = [start for text in texts if (start := opening(text, *self._words)) is not None]
        return PromptRows([renderer.prompt(text) for text in openings], seed, openings)


def _store(rated: RatedTexts, renderer: Renderer) -> TokenStore:
    return TokenStore(renderer.texts([("", text) for text in rated.texts]))
