"""A dialogue in the terminal or through a pipe."""

from collections.abc import Callable, Sequence

from alignlab.inference.backend import Request
from alignlab.prompting.asking import Outcome, solve_all
from alignlab.prompting.technique import Answer, Message, Prompt, Question, Solving
from alignlab.tasks.job import Job, Subject
from alignlab.tasks.streaming import TokenStream


class Chat:
    """Reads a line, writes a reply, remembers both; `/reset` forgets, an end of input (Ctrl-D) ends.

    `system` is the first message. The prompt technique has no part in it. Rows: a turn each.
    """

    needs = "backend"

    def __init__(self, system: str = "") -> None:
        self.system = system

    def run(self, subject: Subject, job: Job) -> dict[str, float]:
        start = [Message("system", self.system)] if self.system else []
        messages, turns, failed = list(start), len(job.predictions.rows), 0
        for row in job.predictions.rows.values():  # of the dialogue that is resumed
            messages += [Message("user", row["input"]), Message("assistant", row["reply"])]
        if job.pipe.isatty():
            job.console.print("a line is a turn; /reset starts anew, Ctrl-D ends")
        stream = TokenStream(subject.tokenizer, job.console.file)
        while line := self._line(job):
            text = line.strip()
            if text == "/reset":
                messages = list(start)
            if not text or text == "/reset":
                continue
            outcome = turn(subject, [*messages, Message("user", text)], str(turns), stream.take)
            stream.end(outcome.answer.text if outcome.answer else "")
            if outcome.error is None:
                messages += [Message("user", text), Message("assistant", outcome.answer.text)]
            else:
                failed += 1
                job.console.print(f"error: {outcome.error} (/reset starts anew)", markup=False)
            reply = outcome.answer.text if outcome.answer else None
            job.predictions.add({"id": str(turns), "input": text, "reply": reply, "error": outcome.error})
            turns += 1
        return {"turns": float(turns), "failed": float(failed)}

    def _line(self, job: Job) -> str:
        if job.pipe.isatty():
            job.console.print("> ", end="")
        return job.pipe.readline()


def turn(
    subject: Subject, messages: Sequence[Message], id: str, on_token: Callable[[int, Request], None] | None = None
) -> Outcome:
    """The model's reply to a dialogue whose last message is the user's; `on_token` gets its tokens as they come."""
    outcomes: list[Outcome] = []
    solve_all(
        [Question(id, "")],
        _Going(messages),
        subject.asker,
        on_outcome=lambda _, outcome: outcomes.append(outcome),
        on_token=on_token,
    )
    return outcomes[0]


class _Going:
    """Goes on with a dialogue as it is."""

    needs_sampling, answer = False, "text"

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = tuple(messages)

    def solve(self, question: Question) -> Solving:
        (reply,) = yield [Prompt(self.messages)]
        return Answer(reply.text.strip(), reply.text)
