"""How likely texts are: log-likelihood, perplexity and bits per byte; under a reward model: how good."""

import math

from alignlab.cost.measured import Clock
from alignlab.data.language.chat_text import ChatText
from alignlab.data.language.rendering import Renderer
from alignlab.tasks.fields import TEXTS
from alignlab.tasks.inputs import Item
from alignlab.tasks.job import Job, Subject
from alignlab.tasks.predictions import Prediction
from alignlab.tasks.rewards import Rewarded, rewards

_UNLIMITED = 2**30  # ids


class Score:
    """Log-likelihood of every item's text under the model, without technique.

    A text begins after the model's begin- or end-of-text token, so that its first token counts too; models that have
    neither start to count at the second. An item's `context` or `prompt` stands before the text and does not count; of
    a chat, written by the model's template, the assistant's turns count, as in training. Texts longer than the model's
    context are read in windows, each token seen with at least `overlap` of a window before it (the first window apart).
    A reward model gives its rewards instead.
    """

    needs = "scorer"

    def __init__(self, overlap: float = 0.5) -> None:
        if not 0 <= overlap < 1:
            raise ValueError(f"overlap is {overlap}; it must lie in [0, 1)")
        self.overlap = overlap

    def run(self, subject: Subject | Rewarded, job: Job) -> dict[str, float]:
        items, clock = job.items(TEXTS), Clock()
        if isinstance(subject, Rewarded):
            return rewards(subject, items, job)
        missing = sorted(job.predictions.missing(items), key=lambda item: -len(item.text))  # similar lengths together
        for start in range(0, len(missing), job.batch_size):
            for row in self.rows(subject, missing[start : start + job.batch_size]):
                job.predictions.add(row)
        seconds = clock.seconds()
        rows = job.rows(item.id for item in items)
        columns = ["id", "input", "tokens", "log_likelihood", "perplexity", "bits_per_byte"]
        job.table("scores", columns, [[row[column] for column in columns] for row in rows])
        new = {item.id for item in missing}
        tokens = sum(row["tokens"] for row in rows if row["id"] in new)
        return total(rows) | {"tokens_per_second": tokens / seconds if seconds else 0.0}

    def rows(self, subject: Subject, items: list[Item]) -> list[Prediction]:
        """Rows of a batch; a text of which nothing can be told becomes an error."""
        windows: list[list[int]] = []
        counted: list[list[tuple[int, list[bool]]]] = []  # of each item: (window, which tokens at its end count)
        errors: list[str | None] = []
        for item in items:
            counted.append([])
            try:
                texts = self._texts(subject, item)
                errors.append(None)
            except ValueError as error:
                texts = []
                errors.append(str(error))
            for ids, counts in texts:
                size, place = sum(counts) and len(ids) - counts.index(True), len(ids)
                place -= size
                for window, new in _windows(ids, size, subject.context_length, self.overlap):
                    counted[-1].append((len(windows), counts[place : place + new]))
                    place += new
                    windows.append(window)
        logprobs = subject.backend.score(windows) if windows else []
        rows = []
        for item, parts, error in zip(items, counted, errors, strict=True):
            ends = ((logprobs[number][len(logprobs[number]) - len(counts) :], counts) for number, counts in parts)
            values = [value for end, counts in ends for value, one in zip(end, counts, strict=True) if one]
            rows.append(_row(item, values, error))
        return rows

    def _texts(self, subject: Subject, item: Item) -> list[tuple[list[int], list[bool]]]:
        """Ids and which of them count, of the text or texts that it takes to read an item."""
        item.check()
        before, text = item.fields.get("example", ("", item.text))
        if isinstance(text, str):
            return [self._plain(subject.tokenizer, before, text)]
        read = Renderer(subject.tokenizer, _UNLIMITED).examples(before, text)
        return [(text.ids, [False, *text.response[1:]]) for text in read]  # nothing stands before the first token

    def _plain(self, tokenizer: object, context: str, text: str) -> tuple[list[int], list[bool]]:
        start = next((id for id in (tokenizer.bos_token_id, tokenizer.eos_token_id) if id is not None), None)
        # Joined before they are cut apart: a tokenizer may merge over the seam, and the model reads what it was
        # trained on.
        before, ids = ChatText(tokenizer).encode_all([context, context + text])
        shared = next(
            (n for n, (a, b) in enumerate(zip(before, ids, strict=False)) if a != b), min(len(before), len(ids))
        )
        size = len(ids) - shared
        if start is None:
            size = min(size, max(0, len(ids) - 1))
        else:
            ids = [start, *ids]
        return ids, [False] * (len(ids) - size) + [True] * size


def total(rows: list[Prediction]) -> dict[str, float]:
    """Perplexity and bits per byte of all texts together, and counts."""
    whole = [row for row in rows if row["error"] is None]
    tokens, size = sum(row["tokens"] for row in whole), sum(row["bytes"] for row in whole)
    likelihood = math.fsum(row["log_likelihood"] for row in whole)
    return {
        "perplexity": _exp(-likelihood / max(1, tokens)) or math.inf,
        "bits_per_byte": -likelihood / math.log(2) / max(1, size),
        "log_likelihood": likelihood,
        "tokens": float(tokens),
        "failed": float(len(rows) - len(whole)),
    }


def _windows(ids: list[int], size: int, limit: int | None, overlap: float) -> list[tuple[list[int], int]]:
    """Pieces of at most `limit` ids that together count each of the last `size` ids once, with how many each counts."""
    if size == 0:
        return []
    if limit is None or len(ids) <= limit:
        return [(ids, size)]
    step = max(1, min(limit - 1, limit - int(limit * overlap)))  # the first id of a window has nothing before it
    counted, windows = len(ids) - size, []
    end = max(limit, counted + step)
    while counted < len(ids):
        end = min(end, len(ids))
        windows.append((ids[max(0, end - limit) : end], end - counted))
        counted, end = end, end + step
    return windows


def _row(item: Item, values: list[float], error: str | None) -> Prediction:
    size, likelihood = len(item.text.encode()), math.fsum(values)
    return {
        "id": item.id,
        "input": item.text,
        "tokens": len(values),
        "bytes": size,
        "log_likelihood": likelihood if values else None,
        "perplexity": _exp(-likelihood / len(values)) if values else None,
        "bits_per_byte": -likelihood / math.log(2) / size if values else None,
        "error": error or (None if values else "the text has no token whose likelihood can be told"),
    }


def _exp(x: float) -> float | None:
    return math.exp(x) if x < 700 else None
