"""A question broken into easier ones, answered one after the other (arXiv:2205.10625)."""

import re
from collections.abc import Mapping, Sequence

from alignlab.files.text import lines_of
from alignlab.prompting.answers import AnswerForm, extract
from alignlab.prompting.demonstrations import read_demonstrations
from alignlab.prompting.technique import Answer, Prompt, Question, Solving, dialogue

_ITEM = re.compile(r"^\s*(?:\d+[.)]|[-*•])\s+(.+)$")


class LeastToMost:
    """Asks for smaller questions, a line each, then answers them in turn: every one sees those before it; the last is
    the question itself.

    At most `max_questions` smaller ones are asked. Demonstrations of breaking up have a numbered list as `answer`.
    """

    needs_sampling = False

    def __init__(
        self,
        max_questions: int = 5,
        instruction: str = "Which simpler questions must be answered first? List them, one a line, the easiest first.",
        demonstrations: Sequence[Mapping[str, str]] | None = None,
        system: str = "",
        answer: AnswerForm = "number",
    ) -> None:
        if max_questions < 1:
            raise ValueError(f"max_questions is {max_questions}; it must be at least 1")
        self.max_questions, self.instruction, self.system, self.answer = max_questions, instruction, system, answer
        self.demonstrations = read_demonstrations(demonstrations, None) if demonstrations else []

    def solve(self, question: Question) -> Solving:
        turns = [t for one in self.demonstrations for t in (self._break_up(one.question), one.answer)]
        (plan,) = yield [Prompt(dialogue(self.system, *turns, self._break_up(question.text)))]
        turns, parts = [], self.parts(plan.text, question.text)
        for number, part in enumerate(parts):
            turns.append(f"{question.text}\n\n{part}" if number == 0 and part != question.text else part)
            (reply,) = yield [Prompt(dialogue(self.system, *turns))]
            turns.append(reply.text.strip())
        return Answer(turns[-1], extract(turns[-1], self.answer))

    def parts(self, plan: str, question: str) -> list[str]:
        """The questions of a plan, numbered or bulleted or else every line that asks, and the question itself at the
        end.
        """
        listed = [match[1].strip() for line in lines_of(plan) if (match := _ITEM.match(line))]
        listed = listed or [line.strip() for line in lines_of(plan) if line.strip().endswith("?")]
        smaller = [part for part in dict.fromkeys(listed) if part != question]
        return [*smaller[: self.max_questions], question]

    def _break_up(self, question: str) -> str:
        return f"{question}\n\n{self.instruction}"
