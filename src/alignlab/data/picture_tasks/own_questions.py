"""Your own questions about pictures, VQA v2's, Visual Genome's and easy-VQA's."""

import json
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignlab.data.image_text.list_mixture import ListOf, Lists
from alignlab.data.picture_tasks.answers import clean_answer
from alignlab.data.picture_tasks.own_task import OwnTask
from alignlab.data.picture_tasks.question_lists import FIELDS, question_rows
from alignlab.data.picture_tasks.questions import Question
from alignlab.data.picture_tasks.task_rows import Bad, TaskRow
from alignlab.files.text import json_items, read_lines

log = logging.getLogger(__name__)


class OwnQuestions(OwnTask):
    """The source behind `data=questions`, `vqa` and `easy_vqa`.

    Args:
        annotations: as in `OwnTask`; a mapping may hold `answers` (VQA's file of annotations; else the one beside the
            questions) and `worth`, what an answer of the list counts, too. See `question_lists.question_rows`.
        image_size: height and width in pixels.
        answer_list: a file of all answers to choose from, .json (a list) or a line each; None: the most frequent ones
            of the training rows.
        max_answers: so many of them. The ALBEF reference has 3,128 for VQA v2.
        clean_answers: articles and punctuation are dropped and numbers become digits, as VQA's evaluation does.
        settings: see `OwnTask`.
    """

    fields = FIELDS

    def __init__(
        self,
        annotations: Lists,
        image_size: int,
        *,
        answer_list: str | None = None,
        max_answers: int = 3128,
        clean_answers: bool = False,
        **settings: Any,
    ) -> None:
        if max_answers < 2:
            raise ValueError(f"max_answers is {max_answers}; it must be at least 2")
        self._clean = clean_answers
        super().__init__(annotations, image_size, **settings)
        self.answers = self._most_frequent(max_answers) if answer_list is None else _listed(answer_list)
        known = set(self.answers)
        unknown = sum(not known.intersection(answer for answer, _ in row.told) for row in self.rows_of("val"))
        if unknown:
            log.warning(
                "%d of %d held-out questions have no answer among the %d to choose from: they count as wrong",
                unknown,
                self.num_rows("val"),
                len(self.answers),
            )

    def read(self, one: ListOf, bad: Bad) -> Iterator[TaskRow]:
        for row in question_rows(one, bad):
            if self._clean:
                shares: Counter[str] = Counter()
                for answer, share in row.told:
                    shares[clean_answer(answer)] += share
                row = row._replace(told=list(shares.items()))
            yield row

    def _most_frequent(self, most: int) -> tuple[str, ...]:
        counts: Counter[str] = Counter()
        for row in self.rows_of("train"):
            for answer, share in row.told:
                counts[answer] += share
        return tuple(sorted(counts, key=lambda answer: (-counts[answer], answer))[:most])

    def question(self, serial: int, split: str) -> Question | None:
        """A picture, a question and its answers; None where the picture is broken and left out."""
        shown = self.shown(serial, split)
        if shown is None:
            return None
        row, (picture, *_) = shown
        return Question(picture, row.text, [(answer, share) for answer, share in row.told], row.kind)

    def vocabulary_texts(self) -> Iterator[str]:
        """Questions and answers."""
        yield from super().vocabulary_texts()
        yield from self.answers

    def held_out_texts(self) -> Iterator[str]:
        yield from super().held_out_texts()
        yield from (answer for row in self.rows_of("val", 20_000) for answer, _ in row.told)


def _listed(file: str) -> tuple[str, ...]:
    """The answers of a file, in its order."""
    if Path(file).suffix.lower() == ".json":
        answers: list[Any] = [answer for _, _, answer in json_items(file, "answer_list")]
    else:
        answers = [line.strip() for line in read_lines(file, "answer_list") if line.strip()]
    wrong = next((answer for answer in answers if not isinstance(answer, str) or not answer.strip()), None)
    if wrong is not None or len(set(answers)) < max(2, len(answers)):
        twice = [answer for answer, number in Counter(map(str, answers)).items() if number > 1]
        reason = f"{json.dumps(wrong)} is no answer" if wrong is not None else f"{twice[:1] or 'too few'} stand there"
        raise ValueError(f"answer_list={file}: it holds two different answers or more, each once; {reason}")
    return tuple(answers)
