"""Several answers to one prompt."""

from collections.abc import Callable, Iterable

from alignlab.prompting.asking import Asker, Outcome, solve_all
from alignlab.prompting.technique import Answer, Message, Prompt, Question, Reply, Solving
from alignlab.tasks.inputs import Item


class Several:
    """Asks one prompt `samples` times; `replies` holds what came, by the question's id."""

    needs_sampling, answer = True, "text"

    def __init__(self, samples: int, instruction: str = "") -> None:
        self.samples, self.instruction = samples, instruction
        self.replies: dict[str, list[Reply]] = {}

    def solve(self, question: Question) -> Solving:
        messages = (*question.before, Message("user", question.text + self.instruction))
        replies = yield [Prompt(messages, draw=draw) for draw in range(self.samples)]
        self.replies[question.id] = list(replies)
        return Answer(replies[0].text, None)


def check_sampled(samples: int, temperature: float) -> None:
    """Raises ValueError where several answers would be equal."""
    if temperature == 0:
        raise ValueError(f"samples={samples} answers at temperature 0 are equal: use sampling=varied")


def draw(
    items: Iterable[Item],
    technique: Several,
    asker: Asker,
    on_item: Callable[[Item, list[Reply], str | None], None],
    problem: Callable[[Item], str | None] = lambda item: item.error,
) -> None:
    """Hands on every item, in any order, with its replies, or with why it has none; those with a `problem` come first
    and aren't asked.
    """
    asked = {}
    for item in items:
        if (error := problem(item)) is not None:
            on_item(item, [], error)
        else:
            asked[item.id] = item

    def outcome(question: Question, summary: Outcome) -> None:
        on_item(asked[question.id], technique.replies.pop(question.id, []), summary.error)

    questions = [Question(item.id, item.text, item.before) for item in asked.values()]
    solve_all(questions, technique, asker, on_outcome=outcome)
