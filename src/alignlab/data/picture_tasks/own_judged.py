"""Your own sentences about one or two pictures with labels, NLVR2's and SNLI-VE's."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from alignlab.data.image_text.list_mixture import ListOf, Lists
from alignlab.data.picture_tasks.judged_lists import NOBODY_KNOWS, judged_rows
from alignlab.data.picture_tasks.own_task import OwnTask
from alignlab.data.picture_tasks.rows import Judged
from alignlab.data.picture_tasks.task_rows import Bad, TaskRow

log = logging.getLogger(__name__)
# In the order in which the built-in data and the published code have them.
_USUAL = (("contradiction", "neutral", "entailment"), ("false", "true"), ("no", "yes"))


class OwnJudged(OwnTask):
    """The source behind `data=judged`, `nlvr2` and `snli_ve`.

    Args:
        annotations: as in `OwnTask`; see `judged_lists.judged_rows`.
        image_size: height and width in pixels.
        labels: the classes in the order of their numbers; None: contradiction, neutral and entailment, false and true,
            no and yes in this order, others by their names.
        settings: see `OwnTask`.

    Raises:
        ValueError: rows have labels that aren't among them, or all the same.
    """

    def __init__(
        self, annotations: Lists, image_size: int, *, labels: Sequence[str] | None = None, **settings: Any
    ) -> None:
        self._wanted = None if labels is None else {str(label).lower() for label in labels}
        super().__init__(annotations, image_size, **settings)
        found = Counter(row.told for row in self.rows_of("train"))
        if labels is None:
            labels = next((usual for usual in _USUAL if found.keys() <= set(usual)), sorted(found))
        if len(set(labels)) < 2 or len(set(labels)) < len(labels):
            raise ValueError(f"labels are {list(labels)}; a task has two different ones or more")
        self.labels = tuple(str(label).lower() for label in labels)
        self._number = {label: number for number, label in enumerate(self.labels)}
        for row in self.rows_of("val"):
            if row.told not in self._number:
                raise ValueError(f"{row.where}: the label {row.told!r} is none of those trained on, {self.labels}")
        shares = ", ".join(f"{label} {found[label] / max(1, found.total()):.0%}" for label in self.labels)
        log.info("labels of the training rows: %s", shares)

    def read(self, one: ListOf, bad: Bad) -> Iterator[TaskRow]:
        undecided = 0
        for row in judged_rows(one, bad):
            if row.told == NOBODY_KNOWS:
                undecided += 1
            elif self._wanted is not None and row.told not in self._wanted:
                error = ValueError(f"{row.where}: the label {row.told!r} is none of labels={sorted(self._wanted)}")
                if bad is None:
                    raise error
                bad(error)
            else:
                yield row
        if undecided:
            log.warning("%s=%s: %d rows that nobody agreed on (label -) are left out", one.key, one.file, undecided)

    def row(self, serial: int, split: str) -> Judged | None:
        """Pictures, a sentence and the label's number; None where a picture is broken and left out."""
        shown = self.shown(serial, split)
        return None if shown is None else Judged(shown[1], shown[0].text, self._number[shown[0].told])
