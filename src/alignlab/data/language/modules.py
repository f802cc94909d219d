"""The LightningDataModule of language models; the data set itself, for SFT, preferences or prompts, is its rows."""

import logging
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from alignlab.data.language.batches import RowSource, Shuffled
from alignlab.data.language.mixing import MixedSource
from alignlab.data.language.rendering import Renderer
from alignlab.data.language.tokenizer import add_tokens, built_in_tokenizer, vocabulary_of
from alignlab.data.loaders import (
    JointBatches,
    JointOrder,
    accumulated_batches,
    ramp_of,
    training_batches,
    whole_batches,
)
from alignlab.types.language import LanguageVocabulary, PromptBatch

log = logging.getLogger(__name__)


class LanguageDataModule(LightningDataModule):
    """Texts for language models: the tokenizer, and loaders that shard by rank and can be resumed.

    Args:
        rows: the data set: a class with the methods of `RowSource`, or its dotted path; made from `split_seed`,
            `val_share` and `of_rows`.
        batch_size: rows of a batch of one process (texts, groups of compared texts, or prompts).
        max_length: ids of a text at most; what is longer is cut on the right.
        tokenizer: hub id, folder or run directory; None: the data set's own, or the built-in one, with `vocab_size`
            ids.
        vocab_size: of a tokenizer that is trained here.
        seed: of the order of the rows.
        split_seed: with `val_share` decides which texts are held out, by a hash of the text.
        val_share: share of the texts that is held out.
        num_workers: processes that make batches; 0 is enough for anything that fits in memory.
        new_tokens: added to the tokenizer; their rows are trained, under an adapter too. `<|name|>` is for templates
            alone.
        mix: several files, or built-in data sets by name (`movie_reviews`), each with its share of the training rows,
            instead of one `path`: see `MixedSource`.
        batch_start: share of a batch's rows that the first batch has (GPT-3: 0.01, arXiv:2005.14165, app. B); it grows
            to the whole within `batch_ramp` batches. Rows that are left out come in the next epoch.
        of_rows: what the data set's own constructor takes.

    Raises:
        ValueError: a number outside its limits.
    """

    def __init__(
        self,
        rows: str | Callable[..., RowSource],
        *,
        batch_size: int = 32,
        max_length: int = 128,
        tokenizer: str | None = None,
        vocab_size: int = 4096,
        seed: int = 0,
        split_seed: int = 0,
        val_share: float = 0.1,
        num_workers: int = 0,
        new_tokens: Sequence[str] = (),
        mix: Mapping[str, float] | None = None,
        batch_start: float = 1.0,
        batch_ramp: int = 0,
        **of_rows: Any,
    ) -> None:
        super().__init__()
        for key, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
            if value < least:
                raise ValueError(f"{key} is {value}; it must be at least {least}")
        if not 0 < val_share < 1:
            raise ValueError(f"val_share is {val_share}; it must be above 0 and below 1")
        self.batch_size, self.max_length, self.num_workers = batch_size, max_length, num_workers
        self._ramp = ramp_of(batch_start, batch_ramp, batch_size)
        self._seed, self._tokenizer_path, self._vocab_size = seed, tokenizer, vocab_size
        self._new_tokens = list(new_tokens)
        make = pkgutil.resolve_name(rows) if isinstance(rows, str) else rows
        common = {"split_seed": split_seed, "val_share": val_share}
        self.source: RowSource = (
            make(**common, **of_rows) if mix is None else MixedSource(mix, make, common, dict(of_rows))
        )
        self.vocabulary: LanguageVocabulary | None = None
        self.rows: dict[str, Shuffled] = {}
        self._warned = False

    def setup(self, stage: str | None = None) -> None:
        """Makes tokenizer and rows, the same in every process."""
        if self.rows:
            return
        if self._tokenizer_path is None:
            self.tokenizer = getattr(self.source, "tokenizer", built_in_tokenizer)(self._vocab_size)
        else:
            from alignlab.models.language.paths import load_tokenizer

            self.tokenizer = load_tokenizer(self._tokenizer_path)
        self._check_made_with()
        self.vocabulary = vocabulary_of(self.tokenizer, add_tokens(self.tokenizer, self._new_tokens))
        self.renderer = Renderer(self.tokenizer, self.max_length)
        self.rows = {split: self.source.rows(split, self.renderer, self._seed) for split in ("train", "val")}
        self.rows["val"].seed = None  # held-out rows keep their order
        if self.renderer.num_controls:
            log.warning(
                "%d texts hold strings of control tokens: they are read as text; give chats as messages",
                self.renderer.num_controls,
            )
        if self.renderer.cut:
            log.warning("%d texts are longer than max_length=%d and were cut", self.renderer.cut, self.max_length)

    def _check_made_with(self) -> None:
        """Raises ValueError if the data set is tokens already, made with a tokenizer of other pieces."""
        for place, wanted in getattr(self.source, "made_with", dict)().items():
            from alignlab.tokenizers.fingerprint import fingerprint
            from alignlab.tokenizers.kinds.hugging_face import of_transformers

            if (found := fingerprint(of_transformers(self.tokenizer).pieces)) != wanted:
                raise ValueError(
                    f"{place} was packed with another tokenizer (fingerprint {wanted[:12]}) than "
                    f"tokenizer={self._tokenizer_path} ({found[:12]}): pack the texts with this one"
                )

    @property
    def batch_type(self) -> type | None:
        """What a training batch is; known after `setup`."""
        return self.rows["train"].batch_type if self.rows else None

    def train_dataloader(self) -> DataLoader:
        """Batches in the epoch's order; incomplete ones are dropped. Raises ValueError where a text is too long for
        the model.
        """
        self._check_context()
        rows = self.rows["train"]
        rows.joint_batch = self.batch_size * self._ranks[1] * accumulated_batches(self.trainer)  # of a whole step
        return training_batches(rows, self.batch_size, self.trainer, self.num_workers, ramp=self._ramp)

    def val_dataloader(self) -> DataLoader:
        """Held-out rows in a fixed order; the last batch may be smaller, equally on all ranks."""
        self._check_context()
        order = JointOrder(len(self.rows["val"]), repeats=True)
        batches = JointBatches(order, self.batch_size, *self._ranks, last="share", smallest=1)
        return whole_batches(self.rows["val"], batches)

    def further_prompts(self, update: int, turn: int, count: int) -> PromptBatch:
        """More training prompts for an update, drawn at random: a function of update, turn and rank alone."""
        rows = self.rows["train"]
        drawn = np.random.default_rng([self._seed, update, turn, self._ranks[0]])
        return rows.batch(drawn.choice(len(rows), size=count, replace=count > len(rows)))

    def _check_context(self) -> None:
        """Raises ValueError, or warns where positions are rotations, if a text has more tokens than the model that
        trains has positions.
        """
        system = getattr(self.trainer, "lightning_module", None)
        if getattr(system, "net", None) is None:
            return
        from alignlab.models.language.context import net_context

        limit, ends = net_context(system.net)
        response = getattr(getattr(system, "sampling", None), "max_new_tokens", 0)
        if limit is None or self.renderer.longest + response <= limit:
            return
        kind, room = ("text", "") if not response else ("prompt", f" and a response up to {response}")
        message = (
            f"the longest {kind} has {self.renderer.longest} tokens{room} (max_length={self.max_length}), the model "
            f"{limit} positions: "
            f"set max_length={max(limit - response, 2)}"
        )
        if ends or response:
            raise ValueError(message)
        if not self._warned:
            log.warning("%s; it goes on beyond what the model was trained for", message)
        self._warned = True

    @property
    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
