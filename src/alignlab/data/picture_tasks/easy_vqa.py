"""easy-VQA: questions about one coloured shape in a picture, from the package of that name (MIT licence)."""

import importlib.util
from pathlib import Path
from typing import Any

from alignlab.data.picture_tasks.own_questions import OwnQuestions


class EasyQuestions(OwnQuestions):
    """The source behind `data=easy_vqa`: 4,000 pictures of 64 pixels with 38,575 questions to train on, its test part
    (1,000 pictures, 9,673 questions) held out; 13 answers. 74 % of the questions are answered by yes or no, and who
    knows the most frequent answer to each question is right in 67 % without looking.

    Args:
        image_size: height and width in pixels.
        max_val: held-out questions at most, evenly of the whole.
        settings: see `OwnQuestions`.

    Raises:
        ValueError: the package isn't installed.
    """

    def __init__(self, image_size: int, *, max_val: int = 2000, **settings: Any) -> None:
        train, val = (_folder() / part / "questions.json" for part in ("train", "test"))
        super().__init__(
            str(train), image_size, val_annotations=str(val), answer_list=str(_folder() / "answers.txt"), **settings
        )
        self.thin_out("val", max_val)


def _folder() -> Path:
    found = importlib.util.find_spec("easy_vqa")
    if found is None or found.origin is None:
        raise ValueError("easy-VQA needs the package easy-vqa: pip install 'alignlab[easy_vqa]'")
    return Path(found.origin).parent / "data"
