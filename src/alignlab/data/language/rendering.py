"""From texts and chats to token ids: the one rendering behind SFT, reward models, DPO and PPO; `chat_text` reads what
people wrote for all.
"""

import logging
from collections.abc import Sequence
from itertools import accumulate, takewhile
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from alignlab.data.language.chat_text import ChatText

log = logging.getLogger(__name__)

Messages = list[dict[str, str]]  # {"role": ..., "content": ...}
Content = str | Messages


class Rendered(NamedTuple):
    """One text as ids; `response` marks what the model is to answer, its end of text included."""

    ids: list[int]
    response: list[bool]


class Renderer:
    """Renders prompts and responses with a tokenizer and its chat template.

    Plain text: `[BOS] prompt response [EOS]`, BOS only where the tokenizer has one. The ids of the prompt are those
    that inference feeds, and always a prefix of the whole. Chats go through the tokenizer's template; every turn of
    the assistant is a response, which ends with the token that the
    template ends the turn with: what it writes after that (a line break) belongs to the next turn. Strings of control
    tokens in what people wrote are text. Where nothing would stand before the response (no prompt, no BOS), the end of
    text does, as between two texts; that is said once.

    Args:
        max_length: ids of a whole text; what is longer is cut on the right and so loses its EOS, `cut` counts such
            texts.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int, append_eos: bool = True) -> None:
        if max_length < 2:
            raise ValueError(f"max_length is {max_length}; it must be at least 2")
        if tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has no end-of-text token (eos_token)")
        self.tokenizer, self.max_length, self.append_eos = tokenizer, max_length, append_eos
        self.written = ChatText(tokenizer)
        self.cut = self.num_empty = self.num_controls = self.longest = 0
        self._start = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
        self._ends = {tokenizer.eos_token_id, self.written.turn_end} - {None}

    def of(self, tokenizer: PreTrainedTokenizerBase) -> "Renderer":
        """The same rendering with another tokenizer, of whole texts: a reward model's of what a policy said."""
        return Renderer(tokenizer, 2**30, self.append_eos)

    def prompt(self, prompt: Content) -> list[int]:
        """Ids that a model is to continue, never empty; the last `max_length - 1` of them if there are more."""
        if isinstance(prompt, str):
            ids = self._open(self._encode_all([prompt])[0])
        else:
            ids = self.written.ids(self._chat(prompt, add_generation_prompt=True))
        self.cut += len(ids) > self.max_length - 1
        return self._counted(ids[-(self.max_length - 1) :])

    def example(self, prompt: Content, response: Content) -> Rendered:
        """A prompt with its response, both plain or both chats.

        Raises ValueError where one text can't hold all turns (see `examples`).
        """
        example = self.examples(prompt, response)
        if len(example) > 1:
            raise ValueError(
                "the tokenizer's chat template changes earlier turns of the assistant when later ones follow: give "
                "the last of them alone as the response"
            )
        return example[0]

    def examples(self, prompt: Content, response: Content) -> list[Rendered]:
        """The same, in as many texts as it takes: where the template changes an earlier turn when later ones follow
        (drops its reasoning), that turn
        is learned in a text of its own, which ends with it, as inference saw it."""
        if isinstance(prompt, str) != isinstance(response, str):
            raise ValueError("a prompt and its response must both be plain text or both be chats")
        if not isinstance(prompt, str):
            return self._chats([*prompt, *response], len(prompt))
        return self.texts([(prompt, response)])

    def texts(self, pairs: Sequence[tuple[str, str]]) -> list[Rendered]:
        """The same for many pairs of plain texts at once."""
        prompts = self._encode_all([prompt for prompt, _ in pairs])
        wholes = self._encode_all([prompt + response for prompt, response in pairs])
        rendered = []
        for (_, response), before, whole in zip(pairs, prompts, wholes, strict=True):
            if whole[: len(before)] != before:  # a token would reach across the border
                whole = before + self.written.encode(response)
            head = self._open(before)
            ids = head + whole[len(before) :] + [self.tokenizer.eos_token_id] * self.append_eos
            rendered.append(self._cut(ids, [False] * len(head) + [True] * (len(ids) - len(head))))
        return rendered

    def chat(self, messages: Messages, first: int = 0) -> Rendered:
        """A chat by the tokenizer's template; turns of the assistant from number `first` on are responses."""
        return self.example(messages[:first], messages[first:])

    def _chats(self, messages: Messages, first: int) -> list[Rendered]:
        """Texts that hold every turn of the assistant from number `first` on just as inference would see it, few of
        them.
        """
        whole, turns = self._chat(messages), []
        for number in range(first, len(messages)):
            if messages[number]["role"] != "assistant":
                continue
            before, after = self._chat(messages[:number], True), self._chat(messages[: number + 1])
            if not after.startswith(before):
                same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False)))
                shown = self.written.text(before[same:])
                raise ValueError(
                    f"the chat template opens the assistant's turn with {shown[-40:]!r}, but doesn't write this "
                    "answer after it"
                )
            turns.append((len(before), after))
        texts, spans = [whole], [[]]
        for start, after in reversed(turns):
            if not texts[-1].startswith(after):
                texts, spans = [*texts, after], [*spans, []]
            spans[-1].insert(0, (start, len(after)))
        marked = [self._marked(text, places) for text, places in zip(texts, spans, strict=True) if places]
        return marked[::-1] or [self._marked(whole, [])]

    def _marked(self, text: str, places: list[tuple[int, int]]) -> Rendered:
        """A chat's text as ids, with the responses at some places (from, to) in its characters."""
        borders = [border for place in places for border in place]
        ids, starts = self.written.ids(text), [self.written.ids(text[:border]) for border in borders]
        if any(ids[: len(start)] != start for start in starts):  # a token would reach across a border
            parts = [text[a:b] for a, b in zip([0, *borders], [*borders, len(text)], strict=True)]
            pieces = [self.written.ids(parts[0]), *map(self.written.continuation, parts[1:])]
            ids = [id for piece in pieces for id in piece]
            counts = list(accumulate(map(len, pieces)))[:-1]
        else:
            counts = [len(start) for start in starts]
        response = [False] * len(ids)
        for start, end in zip(counts[::2], counts[1::2], strict=True):
            end = self._end(ids, start, end)
            response[start:end] = [True] * (end - start)
            if not self.tokenizer.decode(ids[end:]).strip():
                ids, response = ids[:end], response[:end]
        if self.append_eos and response and response[-1] and ids[-1] not in self._ends:
            ids, response = [*ids, self.tokenizer.eos_token_id], [*response, True]
        return self._cut(ids, response)

    def _end(self, ids: list[int], start: int, end: int) -> int:
        """Where a response ends that the template wrote at [start, end): behind the token that ends the turn, if only
        space follows that.
        """
        last = next((i for i in range(end - 1, start - 1, -1) if ids[i] in self._ends), None)
        return end if last is None or self.tokenizer.decode(ids[last + 1 : end]).strip() else last + 1

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
        return Rendered(self._counted(ids[: self.max_length]), response[: self.max_length])

    def _counted(self, ids: list[int]) -> list[int]:
        self.longest = max(self.longest, len(ids))
        return ids

    def _encode_all(self, texts: list[str]) -> list[list[int]]:
        self.num_controls += sum(map(self.written.holds_controls, texts))
        return self.written.encode_all(texts)

    def _chat(self, messages: Messages, add_generation_prompt: bool = False) -> str:
        return self.written.chat(messages, add_generation_prompt)
