"""Reasoning without examples: "Let's think step by step", then the answer (arXiv:2205.11916)."""

from alignlab.files.text import lines_of
from alignlab.prompting.answers import AnswerForm, extract
from alignlab.prompting.technique import Answer, Prompt, Question, Solving, dialogue

# What the paper's second prompt asks for, by form.
_ASKS = {
    "number": "Therefore, the answer (arabic numerals) is",
    "choice": "Therefore, among A through J, the answer is",
    "yes_no": "Therefore, the answer (Yes or No) is",
}


class ZeroShotCot:
    """Asks twice: the reply begins with `trigger`; then the same reply, extended by `conclusion`, is gone on with.

    `conclusion` None: the paper's for the form of the answer. The reasoning is part of the model's own turn both
    times.
    """

    needs_sampling = False

    def __init__(
        self,
        trigger: str = "Let's think step by step.",
        conclusion: str | None = None,
        system: str = "",
        answer: AnswerForm = "number",
    ) -> None:
        self.trigger, self.system, self.answer = trigger, system, answer
        self.conclusion = _ASKS.get(answer, "Therefore, the answer is") if conclusion is None else conclusion

    def solve(self, question: Question) -> Solving:
        messages = dialogue(self.system, question.text)
        (thought,) = yield [Prompt(messages, prefix=self.trigger)]
        reasoning = f"{self.trigger}{_joined(thought.text)}"
        (reply,) = yield [Prompt(messages, prefix=f"{reasoning}\n{self.conclusion}")]
        form: AnswerForm = "line" if self.answer == "text" else self.answer
        return Answer(f"{reasoning}\n{self.conclusion}{_joined(reply.text)}", extract(_first(reply.text), form))


def _joined(text: str) -> str:
    return f" {text.strip()}" if text.strip() else ""


def _first(text: str) -> str:
    """The first line: the conclusion asks for the answer at once, and a base model goes on talking."""
    return next((line for line in lines_of(text) if line.strip()), "")
