"""Solved examples that show their reasoning (arXiv:2201.11903)."""

from collections.abc import Mapping, Sequence

from alignlab.prompting.answers import AnswerForm, extract
from alignlab.prompting.demonstrations import Chooser, Selection, read_demonstrations
from alignlab.prompting.technique import Answer, Prompt, Question, Solving, dialogue


class ChainOfThought:
    """Demonstrations answer with `<reasoning> The answer is <answer>.`; what the reply says after these words is read."""

    needs_sampling = False

    def __init__(
        self,
        demonstrations: Sequence[Mapping[str, str]] | None = None,
        demonstrations_file: str | None = None,
        number: int | None = None,
        selection: Selection = "first",
        seed: int = 0,
        system: str = "",
        answer: AnswerForm = "number",
    ) -> None:
        pool = read_demonstrations(demonstrations, demonstrations_file, reasoning=True)
        self.choose = Chooser(pool, number, selection, seed)
        self.system, self.answer = system, answer

    def solve(self, question: Question) -> Solving:
        turns = []
        for one in self.choose(question):
            turns += [one.question, f"{one.reasoning} The answer is {one.answer}."]
        (reply,) = yield [Prompt(dialogue(self.system, *turns, question.text))]
        return Answer(reply.text, extract(reply.text, self.answer))
