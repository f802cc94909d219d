"""Rows of users' files in the usual formats, brought to one form: prompt and response, or prompt with a preferred and
a rejected response.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.data.language.dialogues import answers
from alignlab.data.language.rendering import Content, Messages
from alignlab.files.text import flaw, json_lines, kind_of, meant

log = logging.getLogger(__name__)
COLUMNS = ("messages", "prompt", "completion", "response", "text", "chosen", "rejected", "share", "margin", "label")
_ROLES = {"human": "user", "gpt": "assistant"}
_CHAT = "a list of messages with role and content"


class Example(NamedTuple):
    """A prompt (perhaps empty) with the response to learn."""

    prompt: Content
    response: Content
    place: str = ""  # file and line


class Labelled(NamedTuple):
    """A prompt with a response that is good or bad."""

    prompt: Content
    response: Content
    good: bool
    place: str = ""


class Prompt(NamedTuple):
    """A prompt to answer."""

    prompt: Content
    columns: Mapping[str, Any] = {}  # the row's others, which a reward may ask for
    place: str = ""


class Preference(NamedTuple):
    """Two responses to one prompt."""

    prompt: Content
    chosen: Content
    rejected: Content
    share: float = 1.0  # of raters that prefers the chosen one
    margin: float = 0.0  # difference of the ratings, 0 where unknown
    place: str = ""


OwnRow = Example | Labelled | Prompt | Preference


def example(row: Mapping[str, Any]) -> Example:
    """From `{messages}`, `{prompt, completion}` (or `response`) or `{text}`.

    Raises:
        ValueError: none of these columns, or a value that is neither text nor a chat.
    """
    if _given(row, "messages"):
        chat = messages(row["messages"], "messages")
        return Example(list(takewhile(lambda message: message["role"] != "assistant", chat)), _rest(chat))
    for name in ("completion", "response"):
        if _given(row, name):
            before = content(row["prompt"], "prompt") if _given(row, "prompt") else ""
            before, (response,) = answers(before, {name: content(row[name], name)})
            return Example(before, response)
    if _given(row, "text"):
        return Example("", content(row["text"], "text"))
    raise ValueError(f"no column messages, completion, response or text; {_columns(row)}")


def labelled(row: Mapping[str, Any]) -> Labelled:
    """From an example with a `label`: true or false, 1 or 0.

    Raises:
        ValueError: see `example`; or the label is another.
    """
    label = row.get("label")
    if label is None:
        raise ValueError(f"no column label; {_columns(row)}")
    if label not in (True, False):
        raise ValueError(f"label is {kind_of(label)}; it must be true (good) or false (bad)")
    found = example(row)
    return Labelled(found.prompt, found.response, bool(label))


def sides(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Pairs as two labelled rows each, other rows as they are."""
    for place, row in rows:
        if not (_given(row, "chosen") and _given(row, "rejected")):
            yield place, row
            continue
        pair = preference(row)
        for response, good in ((pair.chosen, True), (pair.rejected, False)):
            yield place, {"prompt": pair.prompt, "completion": response, "label": good}


def preference(row: Mapping[str, Any]) -> Preference:
    """From `{prompt, chosen, rejected}`, or `{chosen, rejected}` that begin with the same prompt; `share` and `margin`
    where given.

    Chats in chosen and rejected may be answers or whole dialogues (`dialogues.answers`).

    Raises:
        ValueError: a column is missing, or chosen and rejected are of different kinds.
    """
    missing = [name for name in ("chosen", "rejected") if not _given(row, name)]
    if missing:
        raise ValueError(f"no column {' and '.join(missing)}; {_columns(row)}")
    chosen, rejected = content(row["chosen"], "chosen"), content(row["rejected"], "rejected")
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise ValueError("chosen and rejected must both be plain text or both be chats")
    if _given(row, "prompt"):
        prompt, (chosen, rejected) = answers(content(row["prompt"], "prompt"), {"chosen": chosen, "rejected": rejected})
    else:
        cut = common_start(chosen, rejected)
        prompt, chosen, rejected = chosen[:cut], chosen[cut:], rejected[cut:]
    share, margin = _number(row, "share", 1.0), _number(row, "margin", 0.0)
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}; it is a part of the raters, 0 to 1")
    return Preference(prompt, chosen, rejected, share, margin)


def prompt(row: Mapping[str, Any]) -> Prompt:
    """From `{prompt}`, or from `{messages}` up to the last turn of the assistant.

    Raises:
        ValueError: there is no such column.
    """
    if _given(row, "prompt"):
        return Prompt(content(row["prompt"], "prompt"), _others(row, "prompt"))
    if _given(row, "messages"):
        chat = messages(row["messages"], "messages")
        asked = chat[:-1] if chat[-1]["role"] == "assistant" else chat
        if not asked:
            raise ValueError("messages has only a turn of the assistant: nothing to answer")
        return Prompt(asked, _others(row, "messages"))
    raise ValueError(f"no column prompt or messages; {_columns(row)}")


def common_start(first: Content, second: Content) -> int:
    """Length of the prompt that two plain texts or two chats begin with; a space before the difference belongs to the
    responses.
    """
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
    return same - 1 if same and same < min(len(first), len(second)) and first[same - 1] == " " else same


def content(value: object, name: str) -> Content:
    """A column's value as plain text or as a chat (`messages`)."""
    if isinstance(value, str):
        if problem := flaw(value):
            raise ValueError(f"{name} holds {problem}")
        return value
    if isinstance(value, list):
        return messages(value, name)
    raise ValueError(f"{name} is {kind_of(value)}; it must be text or {_CHAT}")


def messages(value: object, name: str) -> Messages:
    """A column's value as a chat: turns with `role` and `content` (or `from` and `value`); capitals in roles don't
    matter.
    """
    if not isinstance(value, list) or not value:
        raise ValueError(f"{name} is {kind_of(value)}; it must be {_CHAT}")
    turns = []
    for number, turn in enumerate(value):
        where = f"{name}[{number}]"
        if not isinstance(turn, Mapping):
            raise ValueError(f"{where} is {kind_of(turn)}; it must be a message with role and content")
        role, text = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        for key, part in (("role", role), ("content", text)):
            if not isinstance(part, str):
                raise ValueError(f"{where}: {key} is {kind_of(part)}; it must be text (there are {', '.join(turn)})")
            if problem := flaw(part):
                raise ValueError(f"{where}: {key} holds {problem}")
        role = role.strip().lower()
        turns.append({"role": _ROLES.get(role, role), "content": text})
    return turns


def read_jsonl(file: str | Path, key: str = "path") -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and row of every line that isn't blank; `key` is what gave the file, for messages.

    Raises:
        ValueError: there is no such file, it is no text, or a line is no JSON object.
    """
    return ((where, row) for _, where, row in json_lines(file, key))


def read_hub(name: str, split: str, config: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same of a data set of the Hugging Face hub, or of a folder that `datasets` understands.

    Raises:
        ValueError: the package `datasets` is missing, or it can't load this.
    """
    try:
        import datasets
    except ImportError as error:
        raise ValueError("a data set of the hub needs the package datasets: pip install 'alignlab[rlhf]'") from error
    try:
        loaded = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # of the network, the hub, the file formats
        raise ValueError(f"path={name}: {(str(error).strip() or type(error).__name__).splitlines()[0]}") from error
    return ((f"{name}[{number}]", row) for number, row in enumerate(loaded))


def normalised(rows: Iterable[tuple[str, Mapping[str, Any]]], read: Any) -> list:
    """`read(row)` of all rows with their places; a problem names the row's. Columns that nothing reads but that look
    like one that is are named once.
    """
    rows_read, said = [], set()
    for place, row in rows:
        for name, known in meant(row, COLUMNS).items() if not said.issuperset(row) else ():
            if name not in said and known not in row:
                log.warning("%s: nothing reads the column %s; did you mean %s?", place, name, known)
        said.update(row)
        try:
            rows_read.append(read(row)._replace(place=place))
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
    return rows_read


def _others(row: Mapping[str, Any], used: str) -> dict[str, Any]:
    return {str(name): value for name, value in row.items() if name != used}


def _given(row: Mapping[str, Any], name: str) -> bool:
    """Whether a column has a value; data sets of several kinds of rows fill the others up with null."""
    return row.get(name) is not None


def _columns(row: Mapping[str, Any]) -> str:
    listed = ", ".join(name if value is not None else f"{name} (null)" for name, value in row.items()) or "none"
    guesses = (f"; did you mean {name} by {said}?" for said, name in meant(row, COLUMNS).items())
    pairs = "; pairs are kind=preference" if row.get("chosen") and row.get("rejected") else ""
    return f"there are {listed}{''.join(guesses)}{pairs}"


def _number(row: Mapping[str, Any], name: str, default: float) -> float:
    value = row.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e308 < value < 1e308:
        raise ValueError(f"{name} is {kind_of(value)}; it must be a finite number")
    return float(value)


def _rest(chat: list[dict[str, str]]) -> list[dict[str, str]]:
    start = next((i for i, message in enumerate(chat) if message["role"] == "assistant"), len(chat))
    if start == len(chat):
        raise ValueError("messages without a turn of the assistant: nothing to learn")
    return chat[start:]
