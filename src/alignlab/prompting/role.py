"""A persona in the system message of any other technique's prompts."""

from collections.abc import Sequence

from alignlab.prompting.answers import AnswerForm
from alignlab.prompting.technique import Message, Prompt, Question, Solving, Technique


class Role:
    """Puts `persona` before the system message of every prompt of `inner`."""

    def __init__(self, persona: str, inner: Technique) -> None:
        if not persona.strip():
            raise ValueError("persona is empty: say who answers, e.g. 'You are a careful teacher.'")
        self.persona, self.inner = persona.strip(), inner

    @property
    def needs_sampling(self) -> bool:
        return self.inner.needs_sampling

    @property
    def answer(self) -> AnswerForm:
        """The inner technique's."""
        return self.inner.answer

    def solve(self, question: Question) -> Solving:
        solving = self.inner.solve(question)
        prompts: Sequence[Prompt] = next(solving)
        while True:
            replies = yield [prompt._replace(messages=self._spoken(prompt.messages)) for prompt in prompts]
            try:
                prompts = solving.send(replies)
            except StopIteration as end:
                return end.value

    def _spoken(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        if messages[0].role == "system":
            return (Message("system", f"{self.persona}\n\n{messages[0].content}"), *messages[1:])
        return (Message("system", self.persona), *messages)
