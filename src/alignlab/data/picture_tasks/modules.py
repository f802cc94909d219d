"""The LightningDataModule of tasks on pictures with texts; the data set itself is its source."""

from collections.abc import Callable
from typing import Any

from torch.utils.data import DataLoader, Dataset

from alignlab.data.image_text.modules import PairDataModule
from alignlab.data.loaders import JointBatches, JointOrder, training_batches, whole_batches, workers_by_cores
from alignlab.data.picture_tasks.questions import QuestionRows, with_end
from alignlab.data.picture_tasks.rows import Hidden, JudgedRows, JudgedSource
from alignlab.types.picture_tasks import Answers, JudgedBatch, QuestionBatch


class JudgedDataModule(PairDataModule):
    """Texts about pictures with classes: an epoch has new rows, a validation the same ones in order, none twice.

    What else a source of pairs offers (retrieval, near misses, zero-shot sets) can be asked of it as before.

    Args:
        source: the data set: a class with the methods of `JudgedSource`, or its dotted path.
        hide: "pictures" makes them all grey, "texts" all empty: what a model learns that is blind to them.
        settings: see `PairDataModule`; those of the data set too.
    """

    batch_type = JudgedBatch
    rows: type[Dataset] = JudgedRows

    def __init__(self, source: str | Callable[..., JudgedSource], *, hide: Hidden = "nothing", **settings: Any) -> None:
        if hide not in ("nothing", "pictures", "texts"):
            raise ValueError(f"hide is {hide!r}; it must be nothing, pictures or texts")
        super().__init__(source, **settings)
        self.hide = hide

    def train_dataloader(self) -> DataLoader:
        """Training rows; incomplete batches are dropped."""
        workers = workers_by_cores(self._ranks[1]) if self.num_workers is None else self.num_workers
        rows = self.rows(self.source, "train", self._encode, self.hide)
        return training_batches(rows, self.batch_size, self.trainer, workers, self.prefetch_factor)

    def val_dataloader(self) -> DataLoader:
        """Held-out rows; the last batch may be smaller, equally on all ranks."""
        order = JointOrder(self.source.num_rows("val"), repeats=True)
        return whole_batches(
            self.rows(self.source, "val", self._encode, self.hide),
            JointBatches(order, self.batch_size, *self._ranks, last="share"),
        )


class QuestionDataModule(JudgedDataModule):
    """Questions about pictures, as `JudgedDataModule` has texts with classes."""

    batch_type = QuestionBatch
    rows = QuestionRows

    def setup(self, stage: str | None = None) -> None:
        """As of pairs, and tells how many answers there are."""
        super().setup(stage)
        self.vocabulary = self.vocabulary._replace(answers=len(self.source.answers))

    def encode_answers(self, texts: list[str]) -> Answers:
        """Answers as the decoder writes them."""
        return Answers(*with_end(self._encode)(texts))
