"""Several lines of reasoning, and the answer that most of them reach (arXiv:2203.11171)."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal

from alignlab.prompting.answers import AnswerForm, key_of
from alignlab.prompting.technique import Answer, Prompt, Question, Reply, Solving, Technique


class SelfConsistency:
    """Solves `samples` times by `inner` in parallel and lets the answers vote.

    `weighting`: "majority" counts answers; "probability" weighs each by exp(mean log-probability of its last reply's
    tokens), the paper's normalised weighted sum. A tie goes to the answer that was drawn first; replies without an
    answer don't vote.
    """

    needs_sampling = True

    def __init__(
        self, inner: Technique, samples: int = 10, weighting: Literal["majority", "probability"] = "majority"
    ) -> None:
        if samples < 1:
            raise ValueError(f"samples is {samples}; it must be at least 1")
        self.inner, self.samples, self.weighting = inner, samples, weighting

    @property
    def answer(self) -> AnswerForm:
        """The inner technique's."""
        return self.inner.answer

    def solve(self, question: Question) -> Solving:
        solvings = [self.inner.solve(question) for _ in range(self.samples)]
        asked: dict[int, Sequence[Prompt]] = {draw: next(solving) for draw, solving in enumerate(solvings)}
        answers: dict[int, Answer] = {}
        last: dict[int, Reply] = {}
        while asked:
            prompts = [p._replace(draw=p.draw * self.samples + draw) for draw, some in asked.items() for p in some]
            replies = iter((yield prompts))
            following = {}
            for draw, some in asked.items():
                mine = [next(replies) for _ in some]
                last[draw] = mine[-1]
                try:
                    following[draw] = solvings[draw].send(mine)
                except StopIteration as end:
                    answers[draw] = end.value
            asked = following
        return self.vote([answers[d] for d in range(self.samples)], [last[d] for d in range(self.samples)])

    def vote(self, answers: Sequence[Answer], replies: Sequence[Reply]) -> Answer:
        """The answer with the most weight, spelt as its first sample spells it."""
        votes: dict[str, float] = defaultdict(float)
        first: dict[str, Answer] = {}
        for answer, reply in zip(answers, replies, strict=True):
            if answer.answer is not None:
                key = key_of(answer.answer, self.answer)
                votes[key] += self._weight(reply)
                first.setdefault(key, answer)
        if not votes:
            return Answer(answers[0].text, None, {})
        best = max(votes, key=lambda key: votes[key])  # the first of equals
        return Answer(first[best].text, first[best].answer, dict(_by_weight(votes)))

    def _weight(self, reply: Reply) -> float:
        return 1.0 if self.weighting == "majority" else math.exp(reply.logprob / max(1, reply.num_tokens))


def _by_weight(votes: dict[str, float]) -> Iterator[tuple[str, float]]:
    yield from sorted(votes.items(), key=lambda vote: -vote[1])
