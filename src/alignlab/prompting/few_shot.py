"""Solved examples before the question, as turns of a dialogue (arXiv:2005.14165)."""

from collections.abc import Mapping, Sequence

from alignlab.prompting.answers import AnswerForm, extract
from alignlab.prompting.demonstrations import Chooser, Demonstration, Selection, read_demonstrations
from alignlab.prompting.technique import Answer, Prompt, Question, Solving, dialogue


class FewShot:
    """Shows question and answer of `number` demonstrations (None: all), chosen as `Chooser` says, then asks once."""

    needs_sampling = False
    needs_reasoning = False  # of demonstrations

    def __init__(
        self,
        demonstrations: Sequence[Mapping[str, str]] | None = None,
        demonstrations_file: str | None = None,
        number: int | None = None,
        selection: Selection = "first",
        seed: int = 0,
        system: str = "",
        answer: AnswerForm = "line",
    ) -> None:
        pool = read_demonstrations(demonstrations, demonstrations_file, reasoning=self.needs_reasoning)
        self.choose = Chooser(pool, number, selection, seed)
        self.system, self.answer = system, answer

    def solve(self, question: Question) -> Solving:
        turns = [text for one in self.choose(question) for text in (one.question, self.shown(one))]
        (reply,) = yield [Prompt(dialogue(self.system, *turns, question.text))]
        return Answer(reply.text, extract(reply.text, self.answer))

    def shown(self, one: Demonstration) -> str:
        """What a demonstration replies."""
        return one.answer
