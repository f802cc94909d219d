"""Rows of tasks on pictures with texts, and batches of them."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from alignlab.data.image_text.batches import fill_gaps, stacked
from alignlab.data.image_text.vocabulary import CaptionEncoder
from alignlab.types.picture_tasks import JudgedBatch

Hidden = Literal["nothing", "pictures", "texts"]
GREY = 128


class Judged(NamedTuple):
    """A text about pictures, and the class that is right."""

    pictures: Sequence[np.ndarray]  # (H, W, 3) uint8 each, equally many for every row of a source
    text: str
    label: int


class JudgedSource(Protocol):
    """What a data set of judged texts has to offer besides the methods of a `PairSource`."""

    labels: Sequence[str]  # names of the classes

    def num_rows(self, split: str) -> int: ...

    def row(self, serial: int, split: str) -> Judged | None:
        """Row of "train" or "val"; training rows beyond `num_rows` are those of later epochs. None of a training row
        whose picture is broken and left out.
        """


class JudgedRows(Dataset):
    """Whole batches of a split; `hide` takes pictures or texts away, to see what the rest tells."""

    def __init__(self, source: JudgedSource, split: str, encode: CaptionEncoder, hide: Hidden = "nothing") -> None:
        self.source, self.split, self.encode, self.hide = source, split, encode, hide

    def __len__(self) -> int:
        return self.source.num_rows(self.split)

    def __getitems__(self, serials: Sequence[int]) -> JudgedBatch:
        rows = fill_gaps([self.source.row(serial, self.split) for serial in serials], serials)
        ids, mask = self.encode(["" if self.hide == "texts" else row.text for row in rows])
        image = stack_hidden([row.pictures for row in rows], self.hide)
        return JudgedBatch(image, ids, mask, torch.tensor([row.label for row in rows]))


def stack_hidden(pictures: Sequence[Sequence[np.ndarray]], hide: Hidden) -> Tensor:
    """(B, P, 3, H, W) uint8, all grey where pictures are hidden."""
    image = stacked([picture for several in pictures for picture in several])
    return (torch.full_like(image, GREY) if hide == "pictures" else image).unflatten(0, (len(pictures), -1))
