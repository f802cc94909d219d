"""The reward of `data=verifiable`: whether a response's answer is right."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from alignlab.distributed.machine import cores
from alignlab.evaluation.verifying.checkers import check


def correct(
    prompts: Sequence[str], responses: Sequence[str], answer: Sequence[Any], checker: Sequence[str]
) -> list[float]:
    """1 for each right response, 0 for a wrong one, and between where a task of reasoning-gym says so.

    Code runs side by side on all cores.

    Raises:
        ValueError: see `check`.
    """
    rows = list(zip(responses, answer, checker, strict=True))
    if any(name == "code" for name in checker):
        with ThreadPoolExecutor(max(1, cores())) as pool:
            return list(pool.map(lambda row: check(*row), rows))
    return [check(*row) for row in rows]
