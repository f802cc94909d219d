"""What a prompt technique is: it asks, reads the replies, and may ask again before it answers."""

from collections.abc import Generator, Sequence
from typing import NamedTuple, Protocol

from alignlab.prompting.answers import AnswerForm


class Message(NamedTuple):
    """One turn of a dialogue."""

    role: str  # system, user, assistant, or another that the model's chat template knows
    content: str


class Prompt(NamedTuple):
    """A dialogue that the model goes on with."""

    messages: tuple[Message, ...]
    prefix: str = ""  # the start of the reply, given to the model rather than written by it
    draw: int = 0  # tells samples of the same prompt apart: a part of the seed


class Reply(NamedTuple):
    """What the model wrote after a prompt and its prefix."""

    text: str
    finish: str = "eos"
    num_tokens: int = 0
    logprob: float = 0.0  # sum over the tokens


class Question(NamedTuple):
    """What is to be answered."""

    id: str
    text: str
    before: tuple[Message, ...] = ()  # earlier turns of the dialogue that it ends


class Answer(NamedTuple):
    """What a technique arrives at.

    `answer` is None where nothing could be extracted, which is not the same as wrong.
    """

    text: str  # the reply it is read from
    answer: str | None
    votes: dict[str, float] | None = None  # of techniques that draw several replies


# Yields prompts, is sent their replies in the same order, returns the answer.
Solving = Generator[Sequence[Prompt], Sequence[Reply], Answer]


class Technique(Protocol):
    """A way of asking. It knows neither model nor tokenizer: the same prompts go to every backend."""

    def solve(self, question: Question) -> Solving:
        """Asks as often as it needs to."""
        ...

    @property
    def needs_sampling(self) -> bool:
        """Whether equal replies to equal prompts would make it pointless."""
        ...

    @property
    def answer(self) -> AnswerForm:
        """In which form an answer is read out of a reply."""
        ...


def following(before: tuple[Message, ...], prompt: Prompt) -> Prompt:
    """A technique's prompt behind the earlier turns of a dialogue; system turns of both become one, in front."""
    if not before:
        return prompt
    turns = (*prompt.messages[:1], *before, *prompt.messages[1:])
    if prompt.messages[0].role != "system":
        turns = (*before, *prompt.messages)
    lead = next((place for place, turn in enumerate(turns) if turn.role != "system"), len(turns))
    system = "\n\n".join(turn.content for turn in turns[:lead])
    return prompt._replace(messages=(*((Message("system", system),) if lead else ()), *turns[lead:]))


def dialogue(system: str, *turns: str) -> tuple[Message, ...]:
    """A system message, if there is one, and turns that alternate between user and assistant."""
    start = (Message("system", system),) if system else ()
    return start + tuple(Message("assistant" if n % 2 else "user", text) for n, text in enumerate(turns))
