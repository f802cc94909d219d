"""What a task works on in a row of its input: rows of every form that training takes, and nothing made up for those
that hold nothing to work on.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from alignlab.data.image_text.annotations import CAPTION_KEYS, IMAGE_KEYS
from alignlab.data.language import rows
from alignlab.data.language.rendering import Content, Messages
from alignlab.data.picture_tasks.judged_lists import LABEL_KEYS, SENTENCE_KEYS
from alignlab.data.picture_tasks.question_lists import ANSWER_KEYS, QUESTION_KEYS
from alignlab.data.picture_tasks.task_rows import has_pictures, pictures_of
from alignlab.files.text import flaw, kind_of, lacking
from alignlab.prompting.technique import Message

Row = Mapping[str, Any]
_QUESTIONS = ("prompt", "question", "messages", "text")
_LEARNED = ("completion", "response", "chosen", "rejected")
_CAPTIONS = (*CAPTION_KEYS, "prompt", "question", "query")

_ABOUT = (*QUESTION_KEYS, *SENTENCE_KEYS, "prompt")
_RIGHT = (*ANSWER_KEYS, *LABEL_KEYS, "target")


class Asked(NamedTuple):
    """One thing to work on in a row."""

    text: str
    before: tuple[Message, ...] = ()  # earlier turns of the dialogue whose last is `text`
    settings: Mapping[str, Any] = {}  # fields under the names that tasks know
    part: str = ""  # its name, of a row that holds several


class Form(NamedTuple):
    """How a task reads rows; `read` raises ValueError where a row holds nothing for it."""

    read: Callable[[Row], list[Asked]]
    known: tuple[str, ...]  # all fields that are read: an unknown one that looks like one of these is named


def question(row: Row) -> list[Asked]:
    """A prompt to answer: `prompt`, `question`, `messages` up to the user's last turn, `text`, or what `chosen` and
    `rejected` begin with.
    """
    name = next((name for name in _QUESTIONS if row.get(name) is not None), None)
    if name is None and row.get("chosen") is not None and row.get("rejected") is not None:
        return [_asked(rows.preference(row).prompt, "what chosen and rejected begin with")]
    if name is None:
        raise ValueError(f"has none of the fields {', '.join(_QUESTIONS)}, {lacking(row, _QUESTIONS, _LEARNED)}")
    return [_asked(rows.prompt(row).prompt if name == "messages" else rows.content(row[name], name), name)]


def captioned(row: Row) -> list[Asked]:
    """Texts about a picture: a caption (or a list of them) under any name that training knows, and perhaps its
    `image`. Capitals and spaces around names don't matter.
    """
    plain = {name.strip().lower(): value for name, value in row.items()}
    image = next((plain[name] for name in IMAGE_KEYS if plain.get(name) not in (None, "")), None)
    settings = {} if image is None else {"image": _text(image, "image")}
    name = next((name for name in _CAPTIONS if plain.get(name) not in (None, "", [])), None)
    if name is None:
        raise ValueError(f"has none of the fields {', '.join(_CAPTIONS)}, {lacking(plain, _CAPTIONS, IMAGE_KEYS)}")
    texts = plain[name] if isinstance(plain[name], list) else [plain[name]]
    asked = [Asked(_filled(_text(text, name), name), (), settings, str(number)) for number, text in enumerate(texts)]
    return asked if len(asked) > 1 else [asked[0]._replace(part="")]


def about_pictures(row: Row) -> list[Asked]:
    """A question or a sentence about one or two pictures, named as in lists for training, and as `settings["target"]`
    what is right, where the row says so.
    """
    plain = {name.strip().lower(): value for name, value in row.items()}
    name = next((name for name in _ABOUT if plain.get(name) not in (None, "", [])), None)
    if name is None:
        raise ValueError(f"has none of the fields {', '.join(_ABOUT)}, {lacking(plain, _ABOUT, IMAGE_KEYS)}")
    settings = {"images": pictures_of(plain, "the row")} if has_pictures(plain) else {}
    right = next((plain[name] for name in _RIGHT if plain.get(name) not in (None, "", [])), None)
    return [Asked(_filled(_text(plain[name], name), name), (), settings | ({} if right is None else {"target": right}))]


def query(row: Row) -> list[Asked]:
    """What is searched for: a text as in `captioned`, else a picture."""
    plain = {name.strip().lower(): value for name, value in row.items()}
    image = next((plain[name] for name in IMAGE_KEYS if plain.get(name) not in (None, "")), None)
    if image is not None and not any(plain.get(name) not in (None, "", []) for name in _CAPTIONS):
        return [Asked(_text(image, "image"), (), {"image": image})]
    return captioned(row)


def scored(row: Row) -> list[Asked]:
    """Texts to be judged, with what stands before them as `settings["example"]`: `text` after a `context`, a
    `completion` or `response` after its `prompt`, the assistant's turns of `messages`, `chosen` and `rejected`, or a
    `prompt` or `question` by itself.
    """
    if row.get("chosen") is not None and row.get("rejected") is not None:
        pair = rows.preference(row)
        sides = {"chosen": pair.chosen, "rejected": pair.rejected}
        return [_judged(pair.prompt, side, name)._replace(part=name) for name, side in sides.items()]
    if (
        row.get("text") is not None
        and row.get("messages") is None
        and row.get("completion", row.get("response")) is None
    ):
        context = "" if row.get("context") is None else _text(row["context"], "context")
        return [_judged(context, _text(row["text"], "text"), "text")]
    for name in ("prompt", "question"):
        learned = any(row.get(other) is not None for other in ("messages", "completion", "response"))
        if row.get(name) is not None and not learned:
            return [_judged("", _text(row[name], name), name)]
    names = ("text", "messages", "completion", "response", "chosen", "rejected", "prompt", "question")
    if all(row.get(name) is None for name in names):
        raise ValueError(f"has none of the fields {', '.join(names)}, {lacking(row, names, ('context',))}")
    example = rows.example(row)
    return [_judged(example.prompt, example.response, "the text")]


QUESTIONS = Form(question, ("id", "target", *_QUESTIONS, *_LEARNED, "share", "margin"))
CAPTIONS = Form(captioned, ("id", *IMAGE_KEYS, *_CAPTIONS))
ABOUT_PICTURES = Form(about_pictures, ("id", *IMAGE_KEYS, "images", *_ABOUT, *_RIGHT))
QUERIES = Form(query, ("id", *IMAGE_KEYS, *_CAPTIONS))
TEXTS = Form(scored, ("id", "context", *_QUESTIONS, *_LEARNED, "share", "margin"))


def _asked(content: Content, name: str) -> Asked:
    if isinstance(content, str):
        return Asked(_filled(content, name))
    if content[-1]["role"] != "user":
        raise ValueError(f"{name} ends with a turn of the {content[-1]['role']}: nothing is asked")
    turns = [Message(turn["role"], turn["content"]) for turn in content]
    return Asked(_filled(turns[-1].content, f"the last turn of {name}"), tuple(turns[:-1]))


def _judged(before: Content, text: Content, name: str) -> Asked:
    shown = text if isinstance(text, str) else _answers(text)
    return Asked(_filled(shown, name), (), {"example": (before, text)})


def _answers(messages: Messages) -> str:
    return "\n".join(turn["content"] for turn in messages if turn["role"] == "assistant")


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} is {kind_of(value)}; it must be text")
    if problem := flaw(value):
        raise ValueError(f"{name} holds {problem}")
    return value


def _filled(text: str, name: str) -> str:
    if not text.strip():
        raise ValueError(f"{name} is empty")
    return text
