"""easy-VQA from its package, where that is installed; a line where it isn't."""

import importlib.util
from collections import Counter

from alignlab.data.picture_tasks.easy_vqa import EasyQuestions

import pytest

HERE = importlib.util.find_spec("easy_vqa") is not None


@pytest.mark.skipif(HERE, reason="easy-vqa is installed")
def test_without_the_package() -> None:
    with pytest.raises(ValueError, match=r"needs the package easy-vqa: pip install 'alignlab\[easy_vqa\]'"):
        EasyQuestions(32)


@pytest.mark.skipif(not HERE, reason="needs the package easy-vqa")
def test_its_files_are_what_they_are_said_to_be() -> None:
    source = EasyQuestions(32, max_val=1000)
    assert source.num_rows("train") == 38_575 and source.num_rows("val") == 1000 and len(source.answers) == 13
    kinds = Counter(row.kind for row in source.rows_of("train"))
    assert kinds["yes_no"] / kinds.total() == pytest.approx(0.736, abs=0.001)
    first = source.question(0, "val")
    assert first.text.endswith("?") and first.picture.shape == (32, 32, 3) and first.answers[0][0] in source.answers
