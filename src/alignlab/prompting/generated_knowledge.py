"""Facts first, written by the model itself, then the answer with each of them (arXiv:2110.08387)."""

import math
from collections.abc import Mapping, Sequence

from alignlab.prompting.answers import AnswerForm, extract
from alignlab.prompting.demonstrations import read_demonstrations
from alignlab.prompting.technique import Answer, Prompt, Question, Solving, dialogue


class GeneratedKnowledge:
    """Draws `statements` pieces of knowledge, asks once with each, and keeps the answer that the model gives most
    surely.

    Demonstrations of knowledge have the fact as `answer`. Sureness is the mean log-probability of the reply's tokens,
    where the paper compares the probabilities of given options. Empty and repeated statements are dropped; none left:
    the question alone.
    """

    def __init__(
        self,
        statements: int = 3,
        instruction: str = "Write a fact that helps to answer the question. Do not answer it.",
        demonstrations: Sequence[Mapping[str, str]] | None = None,
        system: str = "",
        answer: AnswerForm = "line",
    ) -> None:
        if statements < 1:
            raise ValueError(f"statements is {statements}; it must be at least 1")
        self.statements, self.instruction, self.system, self.answer = statements, instruction, system, answer
        self.demonstrations = read_demonstrations(demonstrations, None) if demonstrations else []

    @property
    def needs_sampling(self) -> bool:
        return self.statements > 1

    def solve(self, question: Question) -> Solving:
        turns = [t for one in self.demonstrations for t in (self._ask(one.question), one.answer)]
        messages = dialogue(self.system, *turns, self._ask(question.text))
        drawn = yield [Prompt(messages, draw=draw) for draw in range(self.statements)]
        facts = list(dict.fromkeys(fact for reply in drawn if (fact := " ".join(reply.text.split()))))
        asked = [f"{fact}\n\n{question.text}" for fact in facts] or [question.text]
        replies = yield [Prompt(dialogue(self.system, text)) for text in asked]
        answers = [extract(reply.text, self.answer) for reply in replies]
        sure = [
            reply.logprob / max(1, reply.num_tokens) if answer is not None else -math.inf
            for reply, answer in zip(replies, answers, strict=True)
        ]
        best = max(range(len(sure)), key=sure.__getitem__)
        text = f"{facts[best]}\n\n{replies[best].text}" if facts else replies[best].text
        return Answer(text, answers[best])

    def _ask(self, question: str) -> str:
        return f"{self.instruction}\n\n{question}"
