"""What a reward model reads of a rollout: the ids that its own training would have made of the same words.

A rollout ends at the token that stopped it; training may go on behind it (a template's line break, the end of text). A
reward model with another vocabulary gets the messages again, rendered by its own template, since control tokens of one
vocabulary are none in another.
Legend: B responses.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

log = logging.getLogger(__name__)

Messages = list[dict[str, str]]
WORDS = (("yes", "no"), ("good", "film"), ("a", "b"))  # answers of one word, of which no two end alike
KNOWN = "what do you think of it"


class Scored(NamedTuple):
    """Responses as a reward sees them."""

    prompts: list[str]  # B
    responses: list[str]  # B
    sequences: list[list[int]]  # B, ids of prompt and response in the policy's vocabulary
    ended: list[bool]  # B, False: cut
    contents: Sequence[str | Messages | None] | None = (
        None  # B, what the prompts were rendered from, where that is known
    )
    rows: Sequence[Mapping[str, Any]] | None = None  # B, the other columns of the prompts' rows


class Renderer(Protocol):
    """What is asked of the data's renderer."""

    tokenizer: Any

    def prompt(self, prompt: str | Messages) -> list[int]: ...
    def example(self, prompt: str | Messages, response: str | Messages) -> Any: ...
    def of(self, tokenizer: Any) -> "Renderer": ...


class RewardText:
    """Turns rollouts into what a reward model was trained on.

    renderer: of the policy's prompts, None where nobody knows (ids and texts are then taken as they come); own: the
    reward model's tokenizer where its vocabulary is another one than the policy's.
    """

    def __init__(self, renderer: Renderer | None, own: Any = None) -> None:
        self.policy, self.own, self._said = renderer, own, False
        self.renderer = renderer if renderer is None or own is None else renderer.of(own)
        self._closings: dict[bool, list[int]] = {}

    def rows(self, batch: Scored) -> list[list[int]]:
        """Ids in the reward model's vocabulary, each ended as in its training where the response had ended."""
        contents = (
            batch.contents if batch.contents is not None and self.renderer is not None else [None] * len(batch.ended)
        )
        if self.own is None:
            rows = zip(batch.sequences, batch.ended, contents, strict=True)
            return [self.closed(ids, content) if ended and content is not None else ids for ids, ended, content in rows]
        rows = zip(contents, batch.prompts, batch.responses, batch.ended, strict=True)
        return [self._rendered(*row) for row in rows]

    def closing(self, chat: bool) -> list[int]:
        """Ids that training puts behind the words of the last answer."""
        if chat not in self._closings:
            endings = (self._known(chat, word, self.renderer) for words in WORDS for word in words)
            pairs = zip(*[iter(endings)] * 2, strict=True)
            first, second = next((pair for pair in pairs if pair[0] != pair[1]), ([], []))
            same = next((i for i, (a, b) in enumerate(zip(first[::-1], second[::-1], strict=False)) if a != b), 0)
            self._closings[chat] = first[len(first) - same :]
        return self._closings[chat]

    def closed(self, ids: list[int], content: str | Messages) -> list[int]:
        """A sequence of the policy's, whose last token stopped it, with what training has behind that."""
        closing = self.closing(not isinstance(content, str))
        if ids[-1] in closing:
            return ids + closing[closing.index(ids[-1]) + 1 :]
        control = ids[-1] in self.renderer.tokenizer.all_special_ids
        return (ids[:-1] if control else ids) + closing

    def known(self, stop_ids: Sequence[int]) -> list[tuple[Scored, list[int]]]:
        """Short dialogues as a rollout gives them, each with the ids that the reward model's training makes of it."""
        words_known = []
        for chat in (False, True):
            tokenizers = [self.policy.tokenizer] if self.own is None else [self.policy.tokenizer, self.own]
            if chat and not all(getattr(tokenizer, "chat_template", None) for tokenizer in tokenizers):
                continue
            content = [{"role": "user", "content": KNOWN}] if chat else KNOWN
            prompt = self.policy.prompt(content)
            for word in (word for words in WORDS for word in words):
                ids = self._known(chat, word, self.policy)[len(prompt) :]
                stop = next(
                    (i + 1 for i, id in enumerate(ids) if id in {*stop_ids, self.policy.tokenizer.eos_token_id}),
                    len(ids),
                )
                text = self.policy.tokenizer.decode(ids[:stop], skip_special_tokens=True)
                if text.strip() == word:  # else the tokenizer doesn't know it
                    said = Scored([""], [text], [prompt + ids[:stop]], [True], [content])
                    words_known.append((said, self._known(chat, text, self.renderer)))
                    break
        return words_known

    def _known(self, chat: bool, word: str, renderer: Renderer) -> list[int]:
        if chat:
            turns = [{"role": role, "content": said} for role, said in (("user", KNOWN), ("assistant", word))]
            return list(renderer.example(turns[:1], turns[1:]).ids)
        return list(renderer.example(KNOWN, f" {word.lstrip()}").ids)

    def _rendered(self, content: str | Messages | None, prompt: str, response: str, ended: bool) -> list[int]:
        chat = content is not None and not isinstance(content, str)
        if chat and not getattr(self.own, "chat_template", None):
            if not self._said:
                log.warning(
                    "the reward model's tokenizer has no chat template: chats reach it as text without control tokens"
                )
            self._said, content, chat = True, None, False
        if content is None:
            start = [] if self.own.bos_token_id is None else [self.own.bos_token_id]
            # What people and policies write is text: strings of control tokens too.
            ids = self.own(prompt + response, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            return start + ids + [self.own.eos_token_id] * ended
        return self.written(content, response, ended)

    def written(self, content: str | Messages, response: str, ended: bool) -> list[int]:
        """A prompt with its response as training has it; without what ends it where the response was cut."""
        chat = not isinstance(content, str)
        answer = [{"role": "assistant", "content": response}] if chat else response
        ids, closing = list(self.renderer.example(content, answer).ids), self.closing(chat)
        cut = not ended and closing and ids[-len(closing) :] == closing
        return ids[: -len(closing)] if cut else ids
