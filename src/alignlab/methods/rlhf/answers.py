"""Responses as people read them, with all that is known about each: for rewards, tables and validation.

Legend: B responses.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from alignlab.evaluation.diversity import distinct
from alignlab.methods.rlhf.reward_text import Scored
from alignlab.methods.rlhf.rollout import Responses


class Answer(NamedTuple):
    """A response with all that is known about it."""

    prompt: str
    response: str
    score: float
    judge: float | None
    kl: float  # nats of the whole response
    tokens: list[int]
    ended: bool


def texts(tokenizer: Any, responses: Responses) -> tuple[list[str], list[str]]:
    """Prompts (B) and responses (B); a response is what it adds to its prompt, its first space included."""
    rows = zip(responses.prompts, responses.responses, strict=True)
    wholes = tokenizer.batch_decode([p + r for p, r in rows], skip_special_tokens=True)
    prompts = tokenizer.batch_decode(responses.prompts, skip_special_tokens=True)
    alone = tokenizer.batch_decode(responses.responses, skip_special_tokens=True)
    pairs = zip(prompts, wholes, alone, strict=True)
    return prompts, [whole[len(p) :] if whole.startswith(p) else response for p, whole, response in pairs]


def to_be_scored(tokenizer: Any, responses: Responses) -> Scored:
    """What a reward sees of responses."""
    sequences = [p + r for p, r in zip(responses.prompts, responses.responses, strict=True)]
    return Scored(*texts(tokenizer, responses), sequences, responses.ended, responses.contents, responses.rows)


def means(answers: Sequence[Answer]) -> dict[str, float]:
    """Means over answers; that of the judge where there is one."""
    count = len(answers)
    scored = [a.score for a in answers if math.isfinite(a.score)]
    values = {
        "score": sum(scored) / max(1, len(scored)),
        "kl": sum(a.kl for a in answers) / count,
        "response_length": sum(len(a.tokens) for a in answers) / count,
        "ended": sum(a.ended for a in answers) / count,
        "distinct_2": distinct([a.tokens for a in answers], 2),
    }
    if answers[0].judge is not None:
        values["judge"] = sum(a.judge for a in answers) / count
    return values
