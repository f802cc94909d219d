"""Asks a backend on behalf of techniques: many questions at once, every reply handed on as soon as it is there."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from alignlab.inference.backend import Backend, Completion, Request, Sampling
from alignlab.prompting.rendering import Rendered, Template, render
from alignlab.prompting.technique import Answer, Prompt, Question, Reply, Solving, Technique, following

_LOOKAHEAD = 8  # batches of questions that are open at a time: prompts of similar length go together


class Exchange(NamedTuple):
    """A prompt as the model got it, and what it wrote."""

    prompt: str
    reply: Reply


class Outcome(NamedTuple):
    """What became of a question: an answer, or the error of the request that failed."""

    answer: Answer | None
    exchanges: list[Exchange]
    error: str | None = None


@dataclass(frozen=True)
class Asker:
    """A backend with what is needed to talk to it in text."""

    backend: Backend
    tokenizer: Any
    sampling: Sampling
    template: Template = "auto"
    batch_size: int = 8
    seed: int = 0

    def request(self, rendered: Rendered, question: Question, number: int) -> Request:
        """The `number`-th request of a question; its seed depends on nothing else."""
        sampling = self.sampling._replace(stop=(*self.sampling.stop, *rendered.stop))
        return Request(rendered.ids, seed_of(self.seed, question.id, number), sampling)

    def reply(self, request: Request, completion: Completion) -> Reply:
        """The completion in text, without special tokens and without the stop string that ended it."""
        text = self.tokenizer.decode(completion.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        places = [place for stop in request.sampling.stop if (place := text.find(stop)) >= 0]
        text = text[: min(places)] if places else text
        return Reply(text, completion.finish, len(completion.ids), float(sum(completion.logprobs)))


def seed_of(seed: int, question: str, number: int) -> int:
    """A seed in [0, 2^31) for one request: equal for equal arguments, whatever else is asked."""
    digest = hashlib.blake2b(f"{seed}|{question}|{number}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass(eq=False)
class _Open:
    """A question whose technique waits for replies."""

    question: Question
    solving: Solving
    exchanges: list[Exchange] = field(default_factory=list)
    rendered: list[Rendered] = field(default_factory=list)  # of the round that is being asked
    replies: dict[int, Reply] = field(default_factory=dict)
    asked: int = 0  # prompts of earlier rounds
    over: bool = False  # solved or failed


class _Waiting(NamedTuple):
    """A prompt in the queue."""

    of: _Open
    place: int  # in its round
    request: Request


def solve_all(
    questions: Iterable[Question],
    technique: Technique,
    asker: Asker,
    *,
    on_outcome: Callable[[Question, Outcome], None],
    on_token: Callable[[int, Request], None] | None = None,
) -> None:
    """Solves every question; `on_outcome` gets each as soon as it is solved or has failed, in any order, and
    `on_token` every token with its request.

    A failed request ends its own question only. Prompts go to the backend `batch_size` at a time, those of similar
    length together.
    """
    _Conversation(technique, asker, on_outcome, on_token).run(deque(questions))


class _Conversation:
    def __init__(
        self,
        technique: Technique,
        asker: Asker,
        on_outcome: Callable[[Question, Outcome], None],
        on_token: Callable[[int, Request], None] | None,
    ) -> None:
        self.technique, self.asker, self.on_outcome, self.on_token = technique, asker, on_outcome, on_token
        self.queue: list[_Waiting] = []

    def run(self, questions: deque[Question]) -> None:
        while questions or self.queue:
            if len(self.queue) < self.asker.batch_size:
                while questions and len(self.queue) < _LOOKAHEAD * self.asker.batch_size:
                    question = questions.popleft()
                    self._advance(_Open(question, self.technique.solve(question)), None)
                self.queue.sort(key=lambda waiting: -len(waiting.request.ids))  # stable: equal lengths keep their order
            batch, self.queue = self.queue[: self.asker.batch_size], self.queue[self.asker.batch_size :]
            if batch:
                self._ask(batch)

    def _ask(self, batch: list[_Waiting]) -> None:
        told: set[int] = set()

        def done(index: int, completion: Completion) -> None:
            if index not in told:
                told.add(index)
                self._receive(batch[index], completion)

        def token(index: int, id: int) -> None:
            self.on_token(id, requests[index])

        requests = [waiting.request for waiting in batch]
        streamed = {} if self.on_token is None else {"on_token": token}
        for index, completion in enumerate(self.asker.backend.generate(requests, on_done=done, **streamed)):
            done(index, completion)

    def _receive(self, waiting: _Waiting, completion: Completion) -> None:
        at = waiting.of
        if at.over:  # another of its requests has failed
            return
        if completion.finish == "error":
            self._fail(at, completion.error or "the backend gave no reason")
            return
        at.replies[waiting.place] = self.asker.reply(waiting.request, completion)
        if len(at.replies) == len(at.rendered):
            replies = [at.replies[place] for place in range(len(at.rendered))]
            at.exchanges += [Exchange(r.text, reply) for r, reply in zip(at.rendered, replies, strict=True)]
            self._advance(at, replies)

    def _advance(self, at: _Open, replies: list[Reply] | None) -> None:
        """Lets a technique take its replies and put the prompts of its next round into the queue."""
        at.asked, at.rendered, at.replies = at.asked + len(at.rendered), [], {}
        try:
            prompts = next(at.solving) if replies is None else at.solving.send(replies)
            at.rendered = [self._render(following(at.question.before, prompt)) for prompt in prompts]
            requests = [
                self.asker.request(rendered, at.question, at.asked + place)
                for place, rendered in enumerate(at.rendered)
            ]
        except StopIteration as end:
            at.over = True
            self.on_outcome(at.question, Outcome(end.value, at.exchanges))
            return
        except ValueError as error:
            self._fail(at, str(error))
            return
        self.queue += [_Waiting(at, place, request) for place, request in enumerate(requests)]

    def _render(self, prompt: Prompt) -> Rendered:
        return render(self.asker.tokenizer, prompt, self.asker.template)

    def _fail(self, at: _Open, error: str) -> None:
        """Ends a question; its other prompts leave the queue."""
        at.over = True
        at.solving.close()
        self.queue = [waiting for waiting in self.queue if waiting.of is not at]
        self.on_outcome(at.question, Outcome(None, at.exchanges, error))
