"""Several answers to one prompt."""

from alignlab.prompting.technique import Answer, Message, Prompt, Question, Reply, Solving


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
