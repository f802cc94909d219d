"""What the demo does with a run that was fine-tuned for answers or labels: it is asked about pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from alignlab.tasks.pictures.asking import Answered, asked, names_of, pictures_of
from alignlab.tasks.pictures.subject import VisionLanguage

ANSWERS = 8  # that are shown, at most
_STRIDE = 7919  # held-out rows come in leaps, so that not all of one picture follow each other; a prime


class Example(NamedTuple):
    """A held-out row of the run."""

    pictures: list[Path]
    text: str
    right: str


class Asking:
    """A run that answers questions about pictures, or judges sentences about one or two.

    Args:
        folder: for what lasts as long as the demo: pictures of held-out rows as files.
    """

    def __init__(self, subject: VisionLanguage, folder: Path) -> None:
        self.subject, self._folder = subject, folder / "examples"
        self.names = names_of(subject.datamodule)

    @property
    def pictures(self) -> int:
        """How many pictures a text is about."""
        return pictures_of(self.subject.system)

    @property
    def questions(self) -> bool:
        """Whether texts are questions; else they are sentences that get a label."""
        return hasattr(self.subject.datamodule.source, "question")

    @property
    def blind_to(self) -> str | None:
        """What the run was trained without, pictures or texts."""
        hidden = self.subject.datamodule.hide
        return None if hidden == "nothing" else hidden

    def ask(self, pictures: Sequence[str | None], text: str) -> Answered:
        """The likeliest answers to a text about picture files. Raises ValueError, one line."""
        if missing := sum(not picture for picture in pictures):
            which = "a picture is" if len(pictures) == 1 else f"{missing} of {len(pictures)} pictures are"
            raise ValueError(f"{which} missing: drop one, or take an example")
        if not (text := text.strip()):
            raise ValueError(f"the {'question' if self.questions else 'sentence'} is missing")
        image = torch.stack([self.subject.pixels(Path(picture)) for picture in pictures])
        image = self.subject.datamodule.normalise(image)[None]
        return asked(self.subject.system, self.subject.datamodule, image, text, self.names, top_k=ANSWERS)

    def example(self, number: int) -> Example:
        """A held-out row, its pictures written down as files; another one for each number.

        Raises ValueError where the run has none, or its picture can't be read.
        """
        source = self.subject.datamodule.source
        if not (rows := source.num_rows("val")):
            raise ValueError("this run has no held-out rows")
        serial = number * (_STRIDE if rows % _STRIDE else 1) % rows
        if self.questions:
            row = source.question(serial, "val")
            pictures, right = [row.picture], " or ".join(answer for answer, _ in row.answers)
        else:
            row = source.row(serial, "val")
            pictures, right = row.pictures, source.labels[row.label]
        self._folder.mkdir(parents=True, exist_ok=True)
        files = []
        for place, picture in enumerate(pictures):
            files.append(self._folder / f"{serial:06}_{place}.png")
            Image.fromarray(picture).save(files[-1])
        return Example(files, row.text, right)
