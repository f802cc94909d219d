"""From texts and chats to token ids: the one rendering behind SFT, reward models, DPO, PPO and inference."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

Messages = list[dict[str, str]]  # {"role": ..., "content": ...}
Content = str | Messages


class Rendered(NamedTuple):
    """One text as ids; `response` marks what the model is to answer, its end of text included."""

    ids: list[int]
    response: list[bool]

    @property
    def num_prompt(self) -> int:
        """Ids before the first one of the response."""
        return self.response.index(True) if True in self.response else len(self.ids)


class Renderer:
    """Renders prompts and responses with a tokenizer and its chat template.

    Plain text: `[BOS] prompt response [EOS]`, BOS only where the tokenizer has one. The ids of the prompt are those that inference feeds, and always a
    prefix of the whole. Chats go through the tokenizer's template; every turn of the assistant is a response.
    Where nothing would stand before the response (no prompt, no BOS), the end of text does, as between two texts; that is said once.

    Args:
        max_length: ids of a whole text; what is longer is cut on the right and so loses its EOS, `cut` counts such texts.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int, append_eos: bool = True) -> None:
        if max_length < 2:
            raise ValueError(f"data.max_length is {max_length}; it must be at least 2")
        if tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has no end-of-text token (eos_token)")
        self.tokenizer, self.max_length, self.append_eos = tokenizer, max_length, append_eos
        self.cut = self.num_empty = 0
        self._start = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []

    def of(self, tokenizer: PreTrainedTokenizerBase) -> "Renderer":
        """The same rendering with another tokenizer, of whole texts: a reward model's of what a policy said."""
        return Renderer(tokenizer, 2**30, self.append_eos)

    def prompt(self, prompt: Content) -> list[int]:
        """Ids that a model is to continue, never empty; the last `max_length - 1` of them if there are more."""
        if isinstance(prompt, str):
            ids = self._open(self._encode(prompt)) if prompt else self._open([])
        else:
            ids = self._template(prompt, add_generation_prompt=True)
        self.cut += len(ids) > self.max_length - 1
        return ids[-(self.max_length - 1) :]

    def example(self, prompt: Content, response: Content) -> Rendered:
        """A prompt with its response, both plain or both chats."""
        if isinstance(prompt, str) != isinstance(response, str):
            raise ValueError("a prompt and its response must both be plain text or both be chats")
        if not isinstance(prompt, str):
            return self.chat([*prompt, *response], first=len(prompt))
        return self.texts([(prompt, response)])[0]

    def texts(self, pairs: Sequence[tuple[str, str]]) -> list[Rendered]:
        """The same for many pairs of plain texts at once."""
        prompts = self._encode_all([prompt for prompt, _ in pairs])
        wholes = self._encode_all([prompt + response for prompt, response in pairs])
        rendered = []
        for (_, response), before, whole in zip(pairs, prompts, wholes, strict=True):
            if whole[: len(before)] != before:  # a token would reach across the border
                whole = before + self._encode(response)
            head = self._open(before)
            ids = head + whole[len(before) :] + [self.tokenizer.eos_token_id] * self.append_eos
            rendered.append(self._cut(ids, [False] * len(head) + [True] * (len(ids) - len(head))))
        return rendered

    def chat(self, messages: Messages, first: int = 0) -> Rendered:
        """A chat by the tokenizer's template; turns of the assistant from number `first` on are responses."""
        ids = self._template(messages)
        response = [False] * len(ids)
        for turn in range(first, len(messages)):
            if messages[turn]["role"] != "assistant":
                continue
            before = self._template(messages[:turn], add_generation_prompt=True)
            after = self._template(messages[: turn + 1])
            if ids[: len(before)] != before or ids[: len(after)] != after:
                raise ValueError("the tokenizer's chat template changes earlier turns when later ones follow")
            response[len(before) : len(after)] = [True] * (len(after) - len(before))
        if self.append_eos and response and response[-1] and self.tokenizer.eos_token_id not in ids[-2:]:
            ids, response = [*ids, self.tokenizer.eos_token_id], [*response, True]
        return self._cut(ids, response)

    def _open(self, ids: list[int]) -> list[int]:
        """With what stands before every text; never empty."""
        if not self._start and not ids:
            self.num_empty += 1
            if self.num_empty == 1:
                log.warning("an empty prompt, and the tokenizer has no start of text: the end-of-text token opens it")
            return [self.tokenizer.eos_token_id]
        return self._start + ids

    def _cut(self, ids: list[int], response: list[bool]) -> Rendered:
        self.cut += len(ids) > self.max_length
        return Rendered(ids[: self.max_length], response[: self.max_length])

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _encode_all(self, texts: list[str]) -> list[list[int]]:
        filled = [text for text in texts if text]
        ids = iter(self.tokenizer(filled, add_special_tokens=False)["input_ids"] if filled else [])
        return [next(ids) if text else [] for text in texts]

    def _template(self, messages: Messages, add_generation_prompt: bool = False) -> list[int]:
        if not getattr(self.tokenizer, "chat_template", None):
            raise ValueError(
                "the data hold chats, but the tokenizer has no chat template: use plain prompt and response"
            )
        if not messages:
            return []
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
        return self._encode(text)
