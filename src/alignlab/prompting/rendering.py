"""From a prompt to token ids: through the model's own chat template, or as plain text where it has none."""

from typing import Any, Literal, NamedTuple

from alignlab.data.language.chat_text import ChatText
from alignlab.prompting.technique import Prompt

Template = Literal["auto", "chat", "plain"]
_SPEAKERS = {"user": "Question", "assistant": "Answer"}


class Rendered(NamedTuple):
    """A prompt as the model gets it."""

    text: str
    ids: list[int]
    stop: tuple[str, ...]  # strings that begin the next turn of a plain dialogue


def has_template(tokenizer: Any) -> bool:
    """Whether the model brings a chat template."""
    return bool(getattr(tokenizer, "chat_template", None))


def render(tokenizer: Any, prompt: Prompt, template: Template = "auto") -> Rendered:
    """Text and ids of a prompt.

    A chat template writes its own special tokens, so the tokenizer adds none; plain text gets those that the tokenizer
    puts in front. Strings of control tokens in what people wrote are text, as in training. Raises ValueError for an
    empty prompt and for template="chat" where the model has no template.
    """
    chat = has_template(tokenizer) if template == "auto" else template == "chat"
    if chat and not has_template(tokenizer):
        raise ValueError("template=chat: this model has no chat template; use template=plain")
    written = ChatText(tokenizer)
    if chat:
        marked = written.chat([message._asdict() for message in prompt.messages], True) + written.mark(prompt.prefix)
        text, ids = written.text(marked), written.ids(marked)
    else:
        text = plain(prompt)
        ids = written.encode(text, add_special_tokens=True)
    if not chat and ids and ids[-1] == tokenizer.eos_token_id:
        ids = ids[:-1]  # some tokenizers end every text: there would be nothing to go on with
    if not ids:
        raise ValueError("an empty prompt has no token to go on from")
    dialogue = not chat and not _verbatim(prompt)
    return Rendered(text, list(ids), (f"\n{_SPEAKERS['user']}:",) if dialogue else ())


def plain(prompt: Prompt) -> str:
    """A lone question stays as it is; anything else becomes `Question: ...`, `Answer: ...`, blank
    lines between turns.
    """
    if _verbatim(prompt):
        return prompt.messages[0].content
    strange = next((message.role for message in prompt.messages if message.role not in ("system", *_SPEAKERS)), None)
    if strange is not None:
        raise ValueError(f"a turn of {strange!r} has no plain form; a chat template may know it")
    blocks = [
        message.content if message.role == "system" else f"{_SPEAKERS[message.role]}: {message.content}"
        for message in prompt.messages
    ]
    # Turns of one pair stand together: an answer follows its question on the next line.
    text = blocks[0]
    for message, block in zip(prompt.messages[1:], blocks[1:], strict=True):
        text += ("\n" if message.role == "assistant" else "\n\n") + block
    return f"{text}\n{_SPEAKERS['assistant']}:" + (f" {prompt.prefix}" if prompt.prefix else "")


def _verbatim(prompt: Prompt) -> bool:
    return len(prompt.messages) == 1 and not prompt.prefix
