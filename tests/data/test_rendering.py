"""The rendering that all stages share: prompts are prefixes of examples, chats go through the template, nothing is empty."""

import logging

import pytest

from alignlab.data.language_tokenizer import built_in_tokenizer, vocabulary_of
from alignlab.data.rendering import Renderer

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def tokenizer():
    return built_in_tokenizer(600)


def test_the_tokenizer_is_the_same_every_time_and_reverses(tokenizer):
    text = "a café's “gem” — 10/10 😀"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)).strip() == text
    assert vocabulary_of(tokenizer) == (600, 0, 1, 2)
    assert tokenizer.encode("the", add_special_tokens=False) == tokenizer.encode(" the", add_special_tokens=False)


@pytest.mark.parametrize(
    ("prompt", "response"), [("the film", " is good"), ("the fil", "m is good"), ("", "good"), ("x", "")]
)
def test_a_prompt_is_a_prefix_of_its_example(tokenizer, prompt, response):
    render = Renderer(tokenizer, 64)
    example = render.example(prompt, response)
    start = render.prompt(prompt)
    assert example.ids[: example.num_prompt] == start and example.num_prompt == len(start) > 0
    assert example.ids[-1] == tokenizer.eos_token_id and example.response[-1]
    # A border within a word: the response is a word of its own, as it is for a model that goes on from the prompt.
    wanted = "the fil m is good" if prompt == "the fil" else prompt + response
    assert tokenizer.decode(example.ids, skip_special_tokens=True).strip() == wanted


def test_an_empty_prompt_without_bos_starts_with_the_end_of_text_and_says_so_once(tokenizer, caplog):
    tokenizer.bos_token = None
    render = Renderer(tokenizer, 64)
    with caplog.at_level(logging.WARNING):
        assert render.prompt("") == render.prompt("") == [tokenizer.eos_token_id]
    assert len(caplog.records) == 1 and render.num_empty == 2


def test_cutting_keeps_the_end_of_prompts_and_the_start_of_examples(tokenizer):
    render, words = Renderer(tokenizer, 8), "a b c d e f g h i j k"
    whole = tokenizer.encode(words, add_special_tokens=False)
    assert render.prompt(words) == whole[-7:]
    cut = render.example("", words)
    assert len(cut.ids) == 8 and cut.ids[-1] != tokenizer.eos_token_id and render.cut == 2


def test_every_turn_of_the_assistant_is_a_response(tokenizer):
    tokenizer.chat_template = TEMPLATE
    chat = [("user", "hello"), ("assistant", "good day"), ("user", "more"), ("assistant", "no")]
    messages = [{"role": role, "content": content} for role, content in chat]
    render = Renderer(tokenizer, 128)
    whole = render.chat(messages)
    said = tokenizer.decode([i for i, r in zip(whole.ids, whole.response, strict=True) if r])
    assert said.replace(" ", "") == "goodday<eos>no<eos>"
    last = render.example(messages[:3], messages[3:])
    assert last.ids == whole.ids and last.ids[: last.num_prompt] == render.prompt(messages[:3])


def test_chats_without_a_template_and_mixed_kinds_are_refused(tokenizer):
    render = Renderer(tokenizer, 64)
    with pytest.raises(ValueError, match="no chat template"):
        render.prompt([{"role": "user", "content": "x"}])
    with pytest.raises(ValueError, match="both be plain text or both be chats"):
        render.example("x", [{"role": "assistant", "content": "y"}])
    with pytest.raises(ValueError, match=r"data\.max_length is 1"):
        Renderer(tokenizer, 1)
