"""Rows of users' files in the usual formats, brought to one form: prompt and response, or prompt with a preferred and a rejected response."""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.data.dialogues import answers
from alignlab.data.rendering import Content


class Example(NamedTuple):
    """A prompt (perhaps empty) with the response to learn."""

    prompt: Content
    response: Content
    place: str = ""  # file and line


class Prompt(NamedTuple):
    """A prompt to answer."""

    prompt: Content
    place: str = ""


class Preference(NamedTuple):
    """Two responses to one prompt."""

    prompt: Content
    chosen: Content
    rejected: Content
    share: float = 1.0  # of raters that prefers the chosen one
    margin: float = 0.0  # difference of the ratings, 0 where unknown
    place: str = ""


def example(row: Mapping[str, Any]) -> Example:
    """From `{messages}`, `{prompt, completion}` (or `response`) or `{text}`.

    Raises:
        ValueError: none of these columns, or a value that is neither text nor a chat.
    """
    if "messages" in row:
        chat = content(row["messages"], "messages")
        return Example(list(takewhile(lambda message: message["role"] != "assistant", chat)), _rest(chat))
    for name in ("completion", "response"):
        if name in row:
            before, (response,) = answers(content(row.get("prompt", ""), "prompt"), {name: content(row[name], name)})
            return Example(before, response)
    if "text" in row:
        return Example("", content(row["text"], "text"))
    raise ValueError(f"no column messages, completion, response or text; there are {', '.join(row)}")


def preference(row: Mapping[str, Any]) -> Preference:
    """From `{prompt, chosen, rejected}`, or `{chosen, rejected}` that begin with the same prompt; `share` and `margin` where given.

    Chats in chosen and rejected may be answers or whole dialogues (`dialogues.answers`).

    Raises:
        ValueError: a column is missing, or chosen and rejected are of different kinds.
    """
    missing = [name for name in ("chosen", "rejected") if name not in row]
    if missing:
        raise ValueError(f"no column {' and '.join(missing)}; there are {', '.join(row)}")
    chosen, rejected = content(row["chosen"], "chosen"), content(row["rejected"], "rejected")
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise ValueError("chosen and rejected must both be plain text or both be chats")
    if row.get("prompt") is not None:
        prompt, (chosen, rejected) = answers(content(row["prompt"], "prompt"), {"chosen": chosen, "rejected": rejected})
    else:
        cut = common_start(chosen, rejected)
        prompt, chosen, rejected = chosen[:cut], chosen[cut:], rejected[cut:]
    share, margin = float(row.get("share", 1.0)), float(row.get("margin") or 0.0)
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}; it is a part of the raters, 0 to 1")
    return Preference(prompt, chosen, rejected, share, margin)


def prompt(row: Mapping[str, Any]) -> Prompt:
    """From `{prompt}`, or from `{messages}` up to the last turn of the assistant.

    Raises:
        ValueError: there is no such column.
    """
    if "prompt" in row:
        return Prompt(content(row["prompt"], "prompt"))
    if "messages" in row:
        chat = content(row["messages"], "messages")
        return Prompt(chat[:-1] if chat and chat[-1]["role"] == "assistant" else chat)
    raise ValueError(f"no column prompt or messages; there are {', '.join(row)}")


def common_start(first: Content, second: Content) -> int:
    """Length of the prompt that two plain texts or two chats begin with; a space before the difference belongs to the responses."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
    return same - 1 if same and same < min(len(first), len(second)) and first[same - 1] == " " else same


def content(value: object, name: str) -> Content:
    """A column's value as plain text or as a chat with `role` and `content` (or `from` and `value`)."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(turn, Mapping) for turn in value):
        roles = {"human": "user", "gpt": "assistant"}
        turns = [(turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))) for turn in value]
        if all(isinstance(role, str) and isinstance(text, str) for role, text in turns):
            return [{"role": roles.get(role, role), "content": text} for role, text in turns]
    raise ValueError(f"{name} must be text or a list of messages with role and content, not {str(value)[:60]!r}")


def read_jsonl(file: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place (`file:line`) and row of every line that isn't blank.

    Raises:
        ValueError: there is no such file, or a line is no JSON object.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise ValueError(f"data.path={file}: there is no such file")
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{file}:{number}: no JSON ({error})") from error
        if not isinstance(row, dict):
            raise ValueError(f"{file}:{number}: a row must be an object, not {type(row).__name__}")
        yield f"{file}:{number}", row


def read_hub(name: str, split: str, config: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same of a data set of the Hugging Face hub, or of a folder that `datasets` understands.

    Raises:
        ValueError: the package `datasets` is missing, or it can't load this.
    """
    try:
        import datasets
    except ImportError as error:
        raise ValueError("data=hub needs the package datasets: pip install 'alignlab[rlhf]'") from error
    try:
        loaded = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # of the network, the hub, the file formats
        raise ValueError(f"data.path={name}: {str(error).strip().splitlines()[0]}") from error
    return ((f"{name}[{number}]", row) for number, row in enumerate(loaded))


def normalised(rows: Iterable[tuple[str, Mapping[str, Any]]], read: Any) -> list:
    """`read(row)` of all rows with their places; a problem names the row's."""
    found = []
    for place, row in rows:
        try:
            found.append(read(row)._replace(place=place))
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
    return found


def _rest(chat: list[dict[str, str]]) -> list[dict[str, str]]:
    start = next((i for i, message in enumerate(chat) if message["role"] == "assistant"), len(chat))
    if start == len(chat):
        raise ValueError("messages without a turn of the assistant: nothing to learn")
    return chat[start:]
