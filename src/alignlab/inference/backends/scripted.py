"""A backend without a model that gives the answers it is told, for tests and for looking at prompts."""

import time
from collections.abc import Callable, Mapping, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from alignlab.inference.backend import Availability, Completion, LoadReport, ModelSource, Request


class ScriptedBackend:
    """Answers from a list, in the order of the requests, or by the longest key of a mapping that the prompt contains.

    A request that has no answer becomes an error, like any failed request. Log-probabilities are `logprob` for every
    token.
    """

    name = "scripted"

    def __init__(self, answers: Sequence[str] | Mapping[str, str] | None = None, logprob: float = -1.0) -> None:
        self.answers = answers if isinstance(answers, Mapping) else list(answers or ())
        self.logprob = float(logprob)
        self.prompts: list[str] = []  # all that was asked so far
        self.tokenizer: PreTrainedTokenizerBase = byte_tokenizer()

    def available(self) -> Availability:
        return Availability(True, "")

    def load(self, source: ModelSource) -> LoadReport:
        """Takes over the source's tokenizer; nothing is read."""
        started = time.perf_counter()
        self.tokenizer = source.tokenizer or self.tokenizer
        return LoadReport(time.perf_counter() - started, 0, 0)

    def generate(
        self,
        requests: Sequence[Request],
        *,
        batch_size: int | None = None,
        on_token: Callable[[int, int], None] | None = None,
        on_done: Callable[[int, Completion], None] | None = None,
    ) -> list[Completion]:
        completions = []
        for index, request in enumerate(requests):
            completion = self._complete(request)
            for token in completion.ids if on_token else ():
                on_token(index, token)
            if on_done:
                on_done(index, completion)
            completions.append(completion)
        return completions

    def _complete(self, request: Request) -> Completion:
        prompt = self.tokenizer.decode(request.ids)
        self.prompts.append(prompt)
        answer = self._answer(prompt)
        if answer is None:
            return Completion([], [], "error", f"the script has no answer to {prompt[-60:]!r}")
        ids = self.tokenizer(answer, add_special_tokens=False)["input_ids"]
        whole = len(ids) < request.sampling.max_new_tokens
        ids = [*ids, *([] if self.tokenizer.eos_token_id is None else [self.tokenizer.eos_token_id])]
        ids = ids[: request.sampling.max_new_tokens]
        return Completion(ids, [self.logprob] * len(ids), "eos" if whole else "length")

    def _answer(self, prompt: str) -> str | None:
        if isinstance(self.answers, Mapping):
            keys = [key for key in self.answers if key in prompt]
            return self.answers[max(keys, key=len)] if keys else None
        return self.answers[len(self.prompts) - 1] if len(self.prompts) <= len(self.answers) else None

    def score(self, sequences: Sequence[list[int]]) -> list[list[float]]:
        return [[self.logprob] * (len(ids) - 1) for ids in sequences]

    def set_adapter(self, name: str | None) -> None:
        """Nothing to switch."""

    def memory(self) -> dict[str, int]:
        return {"weights": 0, "kv_cache": 0, "resident": 0, "peak": 0}

    def close(self) -> None:
        """Nothing to give back."""


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of 256 bytes and an end-of-text token: it needs no file and loses nothing."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|end|>": 0, **{letter: number for number, letter in enumerate(letters, start=1)}}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")
