"""Preference pairs that teach nothing or the wrong thing: equal, cut to equal, contradictory, prompts on both sides."""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import numpy as np

from alignlab.corpus.documents import Batch, Document, Verdict

HELD_OUT = ("val", "valid", "validation", "test", "dev", "eval")


class Pairs:
    """Drops pairs whose two sides are the same, as they stand or within what a model is shown of them; all of those
    that are there with either side preferred; and of pairs with a prompt that held-out pairs have, those to learn.

    Args:
        tokenizer: what `alignlab tokenizers` opens; None: nothing is cut.
        max_length: tokens of prompt and response that a model is shown.

    Raises:
        ValueError: `max_length` below 1; the tokenizer can't be read.
    """

    name = "pairs"

    def __init__(self, tokenizer: str | None = None, max_length: int = 512) -> None:
        if max_length < 1:
            raise ValueError(f"max_length is {max_length}; it must be at least 1")
        self._most, self._encode = max_length, None
        if tokenizer is not None:
            from alignlab.tokenizers.opening import open_tokenizer  # it imports transformers

            self._encode = open_tokenizer(str(tokenizer))[0].encode

    def __call__(self, batch: Batch) -> Iterator[tuple[int, Verdict]]:
        for number, document in batch.living():
            prompt, chosen, rejected = sides(document)
            if not chosen.strip() or not rejected.strip():
                yield number, Verdict("no response", {"side": "rejected" if chosen.strip() else "chosen"})
            elif chosen.strip() == rejected.strip():
                yield number, Verdict("equal", {})
            elif self._encode is not None:
                one, other = self._encode([prompt + chosen, prompt + rejected])
                if one[: self._most] == other[: self._most]:
                    evidence = {"tokens": [len(one), len(other)], "max_length": self._most}
                    yield number, Verdict(f"equal in {self._most} tokens", evidence)

    def columns(self, batch: Batch) -> dict[str, np.ndarray]:
        """Keys of pair, turned pair and prompt, (D, 6); which side is longer; whether it is held out."""
        keys = np.zeros((len(batch.documents), 6), np.uint64)
        longer = np.zeros(len(batch.documents), np.int8)
        for number, document in batch.living():
            prompt, chosen, rejected = sides(document)
            keys[number] = [*_key(prompt, chosen, rejected), *_key(prompt, rejected, chosen), *_key(prompt)]
            longer[number] = (len(chosen) > len(rejected)) - (len(chosen) < len(rejected))
        held = np.array([document.split.lower() in HELD_OUT for document in batch.documents], bool)
        return {"pairs": keys, "pairs_longer": longer, "pairs_held": held}


def sides(document: Document) -> tuple[str, str, str]:
    """Prompt, chosen and rejected of a pair as texts; a chat's messages one under the other."""
    found: dict[str, Any] = {"chosen": [], "rejected": []}
    before = []
    for path, text in document.leaves:
        found.get(str(path[0]).lower(), before).append(text)
    return "\n".join(before), "\n".join(found["chosen"]), "\n".join(found["rejected"])


def contradictory(keys: np.ndarray, documents: np.ndarray) -> Iterator[tuple[int, int]]:
    """Documents whose turned pair is there too, with the first that is it."""
    place = {bytes(keys[document, :2]): document for document in documents[::-1].tolist()}
    for document in documents.tolist():
        other = place.get(bytes(keys[document, 2:4]))
        if other is not None and other != document:
            yield document, other


def in_both(keys: np.ndarray, documents: np.ndarray, held: np.ndarray) -> Iterator[tuple[int, int]]:
    """Documents to learn whose prompt a held-out one has, with the first of these."""
    place = {bytes(keys[document, 4:]): document for document in documents[held[documents]][::-1].tolist()}
    nothing = np.array(_key(""), np.uint64).tobytes()
    for document in documents[~held[documents]].tolist():
        prompt = bytes(keys[document, 4:])
        if prompt in place and prompt != nothing:
            yield document, place[prompt]


def _key(*texts: str) -> list[int]:
    joined = "\0".join(" ".join(text.split()) for text in texts).encode(errors="surrogatepass")
    return np.frombuffer(blake2b(joined, digest_size=16).digest(), np.uint64).tolist()
