"""LightningDataModules of language models: the built-in reviews and users' own rows, for SFT, preferences and prompts."""

import logging
from typing import Literal

import numpy as np
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from alignlab.data.image_text.batches import (
    JointBatches,
    JointOrder,
    accumulated_batches,
    training_batches,
    whole_batches,
)
from alignlab.data.language.batches import (
    ComparisonRows,
    Preferences,
    PromptRows,
    RatedRows,
    Shuffled,
    TextRows,
    TokenStore,
)
from alignlab.data.language.dialogues import without_prompts
from alignlab.data.language.preference_texts import comparisons_of, examples_of, opening, prompts_of
from alignlab.data.language.rated_reviews import RatedTexts, in_validation, rated_reviews
from alignlab.data.language.rendering import Renderer
from alignlab.data.language.rows import example, normalised, preference, prompt, read_hub, read_jsonl
from alignlab.data.language.tokenizer import built_in_tokenizer, vocabulary_of
from alignlab.types.language import LanguageVocabulary

log = logging.getLogger(__name__)
Split = Literal["train", "val"]


class LanguageDataModule(LightningDataModule):
    """What all of them share: the tokenizer, loaders that shard by rank and can be resumed.

    Args:
        batch_size: rows of a batch of one process (texts, groups of compared texts, or prompts).
        max_length: ids of a text at most; what is longer is cut on the right.
        tokenizer: hub id, folder or run directory; None: the built-in one with `vocab_size` ids.
        seed: of the order of the rows.
        split_seed, val_share: which texts are held out, by a hash of the text.
        num_workers: processes that make batches; 0 is enough for anything that fits in memory.
    """

    def __init__(
        self,
        *,
        batch_size: int = 32,
        max_length: int = 128,
        tokenizer: str | None = None,
        vocab_size: int = 4096,
        seed: int = 0,
        split_seed: int = 0,
        val_share: float = 0.1,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        for key, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
            if value < least:
                raise ValueError(f"data.{key} is {value}; it must be at least {least}")
        if not 0 < val_share < 1:
            raise ValueError(f"data.val_share is {val_share}; it must be above 0 and below 1")
        self.batch_size, self.max_length, self.num_workers = batch_size, max_length, num_workers
        self.seed, self.split_seed, self.val_share = seed, split_seed, val_share
        self._tokenizer_path, self._vocab_size = tokenizer, vocab_size
        self.vocabulary: LanguageVocabulary | None = None
        self.rows: dict[str, Shuffled] = {}
        self._warned = False

    def make_rows(self, split: Split) -> Shuffled:
        """The rows of a split; called once for each, by `setup`."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Makes tokenizer and rows, the same in every process."""
        if self.rows:
            return
        if self._tokenizer_path is None:
            self.tokenizer = built_in_tokenizer(self._vocab_size)
        else:
            from alignlab.models.language.loading import load_tokenizer

            self.tokenizer = load_tokenizer(self._tokenizer_path)
        self.vocabulary = vocabulary_of(self.tokenizer)
        self.renderer = Renderer(self.tokenizer, self.max_length)
        self.rows = {split: self.make_rows(split) for split in ("train", "val")}
        if self.renderer.num_controls:
            log.warning(
                "%d texts hold strings of control tokens: they are read as text; give chats as messages",
                self.renderer.num_controls,
            )
        if self.renderer.cut:
            log.warning("%d texts are longer than data.max_length=%d and were cut", self.renderer.cut, self.max_length)

    def train_dataloader(self) -> DataLoader:
        """Batches in the epoch's order; incomplete ones are dropped. Raises ValueError where a text is too long for the model."""
        self._check_context()
        rows = self.rows["train"]
        rows.joint_batch = self.batch_size * self._ranks[1] * accumulated_batches(self.trainer)  # of a whole step
        return training_batches(rows, self.batch_size, self.trainer, self.num_workers)

    def val_dataloader(self) -> DataLoader:
        """Held-out rows in a fixed order; the last batch may be smaller, equally on all ranks."""
        self._check_context()
        order = JointOrder(len(self.rows["val"]), repeats=True)
        batches = JointBatches(order, self.batch_size, *self._ranks, last="share", smallest=1)
        return whole_batches(self.rows["val"], batches)

    def _check_context(self) -> None:
        """Raises ValueError, or warns where positions are rotations, if a text has more tokens than the model that trains has positions."""
        system = getattr(self.trainer, "lightning_module", None)
        if getattr(system, "net", None) is None:
            return
        from alignlab.models.language.context import net_context

        limit, ends = net_context(system.net)
        response = getattr(getattr(system, "sampling", None), "max_new_tokens", 0)
        if limit is None or self.renderer.longest + response <= limit:
            return
        kind, room = ("text", "") if not response else ("prompt", f" and model.response_length={response}")
        message = (
            f"the longest {kind} has {self.renderer.longest} tokens{room} (data.max_length={self.max_length}), the model {limit} positions: "
            f"set data.max_length={max(limit - response, 2)}"
        )
        if ends or response:
            raise ValueError(message)
        if not self._warned:
            log.warning("%s; it goes on beyond what the model was trained for", message)
        self._warned = True

    @property
    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


class MovieReviews(LanguageDataModule):
    """Movie reviews to continue, for SFT. `pack`: rows of `max_length` tokens made of several reviews; else rows of one, grouped by length."""

    def __init__(
        self,
        *,
        pack: bool = False,
        batch_size: int = 32,
        max_length: int = 128,
        tokenizer: str | None = None,
        vocab_size: int = 4096,
        seed: int = 0,
        split_seed: int = 0,
        val_share: float = 0.1,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            max_length=max_length,
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            seed=seed,
            split_seed=split_seed,
            val_share=val_share,
        )
        self._pack = pack

    def make_rows(self, split: Split) -> TextRows:
        texts = rated_reviews().part(split, self.split_seed, self.val_share).texts
        store = TokenStore(self.renderer.texts([("", text) for text in texts]))
        seed = self.seed if split == "train" else None
        return TextRows(store, seed, self.max_length if self._pack and split == "train" else None)


class MoviePreferences(LanguageDataModule):
    """Movie reviews in groups of `group_size` of which every two are compared by their ratings; new groups in every epoch.

    `product_reviews`: trains on the ratings of product reviews besides. `batch_size` counts groups.
    """

    def __init__(
        self,
        *,
        group_size: int = 2,
        product_reviews: bool = False,
        batch_size: int = 32,
        max_length: int = 128,
        tokenizer: str | None = None,
        vocab_size: int = 4096,
        seed: int = 0,
        split_seed: int = 0,
        val_share: float = 0.1,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            max_length=max_length,
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            seed=seed,
            split_seed=split_seed,
            val_share=val_share,
        )
        if group_size < 2:
            raise ValueError(f"data.group_size is {group_size}; a comparison needs at least 2 texts")
        self._group_size, self._product_reviews = group_size, product_reviews

    def rated_texts(self, split: Split) -> RatedTexts:
        """The texts of a split with their ratings, in the order of `RatedBatch.index`."""
        texts = rated_reviews().part(split, self.split_seed, self.val_share)
        if self._product_reviews and split == "train":
            more = rated_reviews("product_reviews")
            texts = RatedTexts(texts.texts + more.texts, np.concatenate([texts.shares, more.shares]))
        return texts

    def rated_dataloader(self, split: Split = "val") -> DataLoader:
        """All texts of a split once, for exact statistics over all pairs; every rank sees all of them."""
        rows = RatedRows(self._store(self.rated_texts(split)))
        shortest_first = np.argsort(rows.store.lengths, kind="stable").tolist()
        size = 2 * self.batch_size * self._group_size
        return whole_batches(rows, [shortest_first[i : i + size] for i in range(0, len(rows), size)])

    def make_rows(self, split: Split) -> ComparisonRows:
        rated = self.rated_texts(split)
        means, size = rated.means, self._group_size

        def groups_of(epoch: int) -> np.ndarray:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(rated))
            return order[: len(order) // size * size].reshape(-1, size)

        def preferences(first: np.ndarray, second: np.ndarray) -> Preferences:
            return Preferences(rated.preference(first, second), means[first] - means[second])

        return ComparisonRows(self._store(rated), groups_of, preferences, self.seed if split == "train" else None)

    def _store(self, rated: RatedTexts) -> TokenStore:
        return TokenStore(self.renderer.texts([("", text) for text in rated.texts]))


class MoviePrompts(LanguageDataModule):
    """Openings of movie reviews, `min_words` to `max_words` words, for PPO. The number of words is a hash of the text."""

    def __init__(
        self,
        *,
        min_words: int = 2,
        max_words: int = 6,
        batch_size: int = 64,
        max_length: int = 32,
        tokenizer: str | None = None,
        vocab_size: int = 4096,
        seed: int = 0,
        split_seed: int = 0,
        val_share: float = 0.1,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            max_length=max_length,
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            seed=seed,
            split_seed=split_seed,
            val_share=val_share,
        )
        if not 0 <= min_words <= max_words:
            raise ValueError(f"data.min_words is {min_words}; it must be 0 to data.max_words={max_words}")
        self._words = (min_words, max_words)

    def make_rows(self, split: Split) -> PromptRows:
        texts = rated_reviews().part(split, self.split_seed, self.val_share).texts
        openings = [found for text in texts if (found := opening(text, *self._words)) is not None]
        prompts = [self.renderer.prompt(text) for text in openings]
        return PromptRows(prompts, self.seed if split == "train" else None, openings)


class RowsModule(LanguageDataModule):
    """Your own rows. `kind`: "sft" (to learn), "preference" (pairs) or "prompt" (to answer); docs/data.md has the columns.

    Args:
        path: a .jsonl file, or with `source="hub"` a data set's name.
        val_path: a second file or (hub) the name of a split; None holds out `val_share` of the rows by a hash of their prompt.
        split, config: of a data set of the hub.
        pack: for "sft", several texts in a row of `max_length` tokens.
    """

    def __init__(
        self,
        *,
        path: str,
        kind: Literal["sft", "preference", "prompt"] = "sft",
        source: Literal["jsonl", "hub"] = "jsonl",
        val_path: str | None = None,
        split: str = "train",
        config: str | None = None,
        pack: bool = False,
        batch_size: int = 8,
        max_length: int = 1024,
        tokenizer: str | None = None,
        vocab_size: int = 4096,
        seed: int = 0,
        split_seed: int = 0,
        val_share: float = 0.05,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            max_length=max_length,
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            seed=seed,
            split_seed=split_seed,
            val_share=val_share,
        )
        self._path, self._kind, self._source, self._val_path = path, kind, source, val_path
        self._split, self._config, self._pack = split, config, pack
        self._read: dict[str | None, list] = {}

    def make_rows(self, split: Split) -> Shuffled:
        found, seed = self._of_split(split), self.seed if split == "train" else None
        if not found:
            raise ValueError(
                f"data.path={self._path}: no rows for {split}; set data.val_path or another data.val_share"
            )
        if self._kind == "prompt":
            return PromptRows(prompts_of(found, self.renderer), seed, [row.prompt for row in found])
        if self._kind == "preference":
            return comparisons_of(found, self.renderer, seed)
        return TextRows(
            examples_of(found, self.renderer), seed, self.max_length if self._pack and seed is not None else None
        )

    def _of_split(self, split: Split) -> list:
        if self._val_path is not None:
            return self._rows(None if split == "train" else self._val_path)
        held_out = split == "val"
        return [
            row
            for row in self._rows(None)
            if in_validation(self._key(row), self.split_seed, self.val_share) == held_out
        ]

    def _rows(self, val_path: str | None) -> list:
        if val_path not in self._read:
            read = {"sft": example, "preference": preference, "prompt": prompt}[self._kind]
            if self._source == "hub":
                rows = read_hub(self._path, val_path or self._split, self._config)
            else:
                rows = read_jsonl(val_path, "data.val_path") if val_path else read_jsonl(self._path)
            found = normalised(rows, read)
            columns = {"sft": ("response",), "preference": ("chosen", "rejected"), "prompt": ()}[self._kind]
            self._read[val_path] = without_prompts(found, columns, val_path or self._path) if columns else found
        return self._read[val_path]

    def _key(self, row: object) -> str:
        """What decides about the split: the prompt, so that no prompt is in both; the whole row where there is none."""
        return str(row.prompt or (row.prompt if self._kind == "prompt" else tuple(row)[:-1]))  # without its place
