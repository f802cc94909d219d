"""Prompts become exactly this text, through a chat template or without one."""

from alignlab.inference.backends.scripted import byte_tokenizer
from alignlab.prompting.rendering import render
from alignlab.prompting.technique import Prompt, dialogue
from served_model import chat_tokenizer

import pytest

SHOTS = Prompt(dialogue("Be brief.", "1 + 1?", "2", "2 + 2?"), prefix="It is")


def test_a_lone_question_stays_as_it_is() -> None:
    rendered = render(byte_tokenizer(), Prompt(dialogue("", "Once upon a time")))
    assert (rendered.text, rendered.stop) == ("Once upon a time", ())
    assert byte_tokenizer().decode(rendered.ids) == "Once upon a time"


def test_plain_dialogue() -> None:
    rendered = render(byte_tokenizer(), SHOTS)
    assert rendered.text == "Be brief.\n\nQuestion: 1 + 1?\nAnswer: 2\n\nQuestion: 2 + 2?\nAnswer: It is"
    assert rendered.stop == ("\nQuestion:",)


def test_chat_template() -> None:
    rendered = render(chat_tokenizer(), SHOTS)
    assert rendered.text == (
        "<system>Be brief.</system>\n<user>1 + 1?</user>\n<assistant>2</assistant>\n<user>2 + 2?</user>\n<assistant>It is"
    )
    assert rendered.stop == ()
    assert render(chat_tokenizer(), SHOTS, "plain") == render(byte_tokenizer(), SHOTS, "auto")


def test_a_template_without_system_role() -> None:
    tokenizer = chat_tokenizer()
    refuse = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    tokenizer.chat_template = refuse + tokenizer.chat_template
    assert render(tokenizer, SHOTS).text.startswith("<user>Be brief.\n\n1 + 1?</user>\n<assistant>2</assistant>")


def test_special_tokens_come_once() -> None:
    """A template that writes the start token itself, with a tokenizer that would add another."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = chat_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|end|> $A <|end|>", special_tokens=[("<|end|>", 0)]
    )
    tokenizer.chat_template = "<|end|>" + tokenizer.chat_template
    question = Prompt(dialogue("", "Hi"))
    assert render(tokenizer, question).ids.count(0) == 1
    plain = render(tokenizer, question, "plain").ids
    assert plain[0] == 0 and plain.count(0) == 1, "the start stays, the end goes: there is more to come"


def test_what_cannot_be_rendered() -> None:
    with pytest.raises(ValueError, match="template=chat: this model has no chat template"):
        render(byte_tokenizer(), SHOTS, "chat")
    with pytest.raises(ValueError, match="empty prompt"):
        render(byte_tokenizer(), Prompt(dialogue("", "")))
