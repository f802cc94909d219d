"""What the demo does with language models: a dialogue with one or two of them, their tokens as they come."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import NamedTuple

from alignlab.inference.backend import Request
from alignlab.prompting.asking import Outcome
from alignlab.prompting.technique import Message
from alignlab.tasks.chat import turn
from alignlab.tasks.job import Subject
from alignlab.tasks.streaming import TokenStream

Dialogue = list[Message]


class Said(NamedTuple):
    """One model's part of a turn, as far as it has come."""

    text: str
    done: bool = False
    error: str | None = None


class Stopped(Exception):
    """Somebody has read enough."""


class Talking:
    """Dialogues with models side by side; each has a thread while it answers, so that both can be read as they write.

    Args:
        system: the first message; none where it is empty.
    """

    def __init__(self, subjects: Sequence[Subject], system: str = "") -> None:
        self.subjects, self.system = list(subjects), system
        self._stops: dict[str, threading.Event] = {}  # of the turns that are being answered, by who asked

    def beginning(self, system: str | None = None) -> list[Dialogue]:
        """A dialogue with each model in which nothing has been said."""
        system = (self.system if system is None else system).strip()
        return [[Message("system", system)] if system else [] for _ in self.subjects]

    def turn(
        self, dialogues: list[Dialogue], text: str, temperature: float, max_new_tokens: int, who: str = ""
    ) -> Iterator[list[Said]]:
        """What each model has said to `text` so far, again and again until all are done; both stand in its dialogue
        then. Raises ValueError where there is no text.
        """
        if not (text := text.strip()):
            raise ValueError("there is nothing to answer: the message is empty")
        stop, news = threading.Event(), SimpleQueue()
        self._stops[who] = stop
        said = [Said("") for _ in self.subjects]
        for place, dialogue in enumerate(dialogues):
            asked = [*dialogue, Message("user", text)]
            arguments = (place, asked, (temperature, max_new_tokens), stop, news)
            threading.Thread(target=self._answer, args=arguments, daemon=True, name=f"model {place}").start()
        try:
            while not all(one.done for one in said):
                yield list(said)
                for place, new in _waiting(news):
                    said[place] = _further(said[place], new)
            for dialogue, one in zip(dialogues, said, strict=True):
                if one.error is None:
                    dialogue += [Message("user", text), Message("assistant", one.text)]
            yield list(said)
        finally:
            stop.set()  # whoever asked may have left
            if self._stops.get(who) is stop:
                del self._stops[who]

    def stop(self, who: str | None = None) -> None:
        """Ends the turn that somebody waits for where it is; None: everybody's."""
        for name, event in list(self._stops.items()):
            if who in (None, name):
                event.set()

    def _answer(
        self, place: int, asked: Dialogue, how: tuple[float, int], stop: threading.Event, news: SimpleQueue
    ) -> None:
        subject, (temperature, max_new_tokens) = self.subjects[place], how
        sampling = subject.asker.sampling._replace(temperature=temperature, max_new_tokens=max_new_tokens)
        subject = subject._replace(asker=replace(subject.asker, sampling=sampling))
        stream = TokenStream(subject.tokenizer, _Pieces(place, news))

        def token(id: int, request: Request) -> None:
            if stop.is_set():
                raise Stopped
            stream.take(id, request)

        try:
            news.put((place, turn(subject, asked, str(len(asked)), token)))
        except Exception as error:  # a thread has nobody to raise to: the page says it
            news.put((place, error))


class _Pieces:
    """A file that hands what is written to it to a queue."""

    def __init__(self, place: int, news: SimpleQueue) -> None:
        self.place, self.news = place, news

    def write(self, text: str) -> None:
        if text:
            self.news.put((self.place, text))

    def flush(self) -> None: ...


def _waiting(news: SimpleQueue) -> Iterator[tuple[int, object]]:
    """All that is there, after at least one."""
    yield news.get()
    while True:
        try:
            yield news.get_nowait()
        except Empty:
            return


def _further(said: Said, new: object) -> Said:
    if isinstance(new, str):
        return said._replace(text=said.text + new)
    if isinstance(new, Outcome):
        return Said(new.answer.text if new.answer else said.text, True, new.error)
    if isinstance(new, Stopped):
        return said._replace(text=said.text.strip(), done=True)
    return said._replace(done=True, error=f"{type(new).__name__}: {new}")
