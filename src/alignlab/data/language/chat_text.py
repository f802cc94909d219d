"""Texts and chats as token ids, the same way in training, rewards and inference: what people wrote is text, and
control tokens are the template's alone.

`<|im_end|>` or `<eos>` inside a message would otherwise become the very token that ends a turn. Such strings are
carried through the template as private characters (`marked` text); then template's tokens and people's strings change
places, and a copy of the tokenizer that knows the former by the private characters reads the whole.
"""

import json
import re
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

Messages = Sequence[dict[str, str]]  # {"role": ..., "content": ...}

CONTROL = r"<\|.*\|>"  # what a token looks like that templates write, whether it is called special or not
_FIRST, _LAST = 0x108000, 0x10FFFD  # private characters, one for each control token
_copies: WeakKeyDictionary = WeakKeyDictionary()  # tokenizer -> (its control tokens, the copy)


class ChatText:
    """A tokenizer's reading of plain texts and of chats by its template.

    Raises ValueError where a text can't be read as text: the tokenizer is a Python one, or the template changes what
    it is given.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        added = getattr(tokenizer, "added_tokens_decoder", {})
        # Longest first, as tokenizers match. Some fine-tunes add their <|im_end|> without calling it special.
        known = set(getattr(tokenizer, "all_special_tokens", ()))
        names = {
            token.content: number
            for number, token in added.items()
            if token.special or token.content in known or re.fullmatch(CONTROL, token.content)
        }
        self.controls = dict(sorted(names.items(), key=lambda item: (-len(item[0]), item[0])))
        self._pattern = re.compile("|".join(map(re.escape, self.controls)) or r"(?!)")
        self._marks = {name: chr(_FIRST + number) for number, name in enumerate(self.controls)}
        self._swap = self._marks | {mark: name for name, mark in self._marks.items()}
        self._either = re.compile("|".join(map(re.escape, self._swap)) or r"(?!)")
        self._private = re.compile(f"[{chr(_FIRST)}-{chr(_LAST)}]")

    def holds_controls(self, text: str) -> bool:
        """Whether a string of a control token stands in a text."""
        return self._pattern.search(text) is not None

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Ids of a plain text; `add_special_tokens` as the tokenizer's own argument."""
        return self.encode_all([text], add_special_tokens)[0]

    def encode_all(self, texts: Sequence[str], add_special_tokens: bool = False) -> list[list[int]]:
        """The same for many texts at once; an empty one has no ids of its own."""
        if any(map(self.holds_controls, texts)):
            encodings = self._copy(texts).encode_batch(list(texts), add_special_tokens=add_special_tokens)
            return [one.ids for one in encodings]
        if add_special_tokens:
            return [list(ids) for ids in self.tokenizer(list(texts))["input_ids"]]
        filled = [text for text in texts if text]
        ids = iter(self.tokenizer(filled, add_special_tokens=False)["input_ids"] if filled else [])
        return [list(next(ids)) if text else [] for text in texts]

    def chat(self, messages: Messages, add_generation_prompt: bool = False) -> str:
        """A chat in the template's writing, marked; `ids` and `text` read it.

        A template that knows no system turn gets it at the head of the first user's turn. Raises ValueError where it
        refuses the chat.
        """
        if not getattr(self.tokenizer, "chat_template", None):
            raise ValueError(
                "the data hold chats, but the tokenizer has no chat template: use plain prompt and response"
            )
        if not messages:
            return ""
        if (role := next((turn["role"] for turn in messages if self.holds_controls(turn["role"])), None)) is not None:
            raise ValueError(f"the role {role!r} holds a control token's string")
        marked = [{**turn, "content": self.mark(turn["content"])} for turn in messages]
        written = self._written(marked, add_generation_prompt)
        if marked != list(messages) and self.text(written) != self._written(messages, add_generation_prompt):
            token = self._pattern.search(" ".join(turn["content"] for turn in messages)).group()
            raise ValueError(f"the chat template changes {token!r}, a control token's string, on its way into the text")
        return written

    def ids(self, marked: str) -> list[int]:
        """Ids of a marked text."""
        if self._private.search(marked) is None:
            return list(self.tokenizer.encode(marked, add_special_tokens=False))
        swapped = self._either.sub(lambda match: self._swap[match.group()], marked)
        return self._copy([]).encode(swapped, add_special_tokens=False).ids

    def continuation(self, marked: str) -> list[int]:
        """Ids of a marked text that follows others: without the space that some tokenizers put before a text's first
        word.
        """
        anchor = self.tokenizer.eos_token
        ids = self.ids(anchor + marked)
        return ids[1:] if ids[:1] == [self.tokenizer.eos_token_id] and marked else self.ids(marked)

    def text(self, marked: str) -> str:
        """A marked text as people see it."""
        return self._private.sub(lambda match: self._swap[match.group()], marked)

    @property
    def turn_end(self) -> int | None:
        """The control token that the template ends a turn of the assistant with; None without one."""
        if not getattr(self.tokenizer, "chat_template", None):
            return None
        answer = chr(_LAST)
        try:
            written = self._written([{"role": "user", "content": "a"}, {"role": "assistant", "content": answer}], False)
        except ValueError:
            return None
        after = written.rpartition(answer)[2] if answer in written else ""
        match = self._pattern.search(after)
        return self.controls[match.group()] if match and not after[: match.start()].strip() else None

    def mark(self, text: str) -> str:
        """A text of people as it goes into a template, or behind what one wrote."""
        self._check(text)
        return self._pattern.sub(lambda match: self._marks[match.group()], text)

    def _check(self, text: str) -> None:
        match = self._private.search(text)
        if match is not None:
            raise ValueError(f"a text holds U+{ord(match.group()):X}, a private character that is needed here")

    def _written(self, messages: Messages, add_generation_prompt: bool) -> str:
        from jinja2.exceptions import TemplateError

        settings = {"tokenize": False, "add_generation_prompt": add_generation_prompt}
        try:
            return self.tokenizer.apply_chat_template(list(messages), **settings)
        except (TemplateError, TypeError) as error:
            if len(messages) > 1 and messages[0]["role"] == "system" and messages[1]["role"] == "user":
                joined = f"{messages[0]['content']}\n\n{messages[1]['content']}"
                return self._written([{"role": "user", "content": joined}, *messages[2:]], add_generation_prompt)
            roles = ", ".join(turn["role"] for turn in messages[:6])
            raise ValueError(f"the chat template refuses the roles {roles}: {error}") from error

    def _copy(self, texts: Sequence[str]) -> Any:
        """The tokenizer in which control tokens go by their private characters, so that their strings are text like
        any other.
        """
        for text in texts:
            self._check(text)
        known = _copies.get(self.tokenizer)
        if known is None or known[0] != self.controls:
            if not hasattr(self.tokenizer, "backend_tokenizer"):
                kind = type(self.tokenizer).__name__
                raise ValueError(f"a text holds a control token's string, which {kind} can't read as text")
            known = _copies[self.tokenizer] = (self.controls, _renamed(self.tokenizer.backend_tokenizer, self._marks))
        return known[1]


def _renamed(backend: Any, names: dict[str, str]) -> Any:
    """A copy of a `tokenizers.Tokenizer` in which some tokens have other names and the same ids."""
    from tokenizers import Tokenizer

    content = json.loads(backend.to_str())
    for token in content["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = content["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(piece, piece): id for piece, id in model["vocab"].items()}
    else:  # Unigram: pieces with their scores
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    copy = Tokenizer.from_str(json.dumps(content))
    copy.no_truncation()
    copy.no_padding()
    return copy
