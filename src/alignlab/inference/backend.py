"""The protocol that every inference backend keeps, and the values that go in and come out.

Legend: B requests, P prompt tokens, T new tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Sampling(NamedTuple):
    """How tokens are chosen; the defaults are greedy."""

    max_new_tokens: int = 64
    temperature: float = 0.0  # 0 = greedy
    top_k: int = 0  # 0 = off
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()  # stop strings; they need the tokenizer
    stop_ids: tuple[int, ...] = ()  # stop tokens besides the model's EOS
    ignore_eos: bool = False  # benchmarks: always max_new_tokens
    regex: str | None = None  # what the new text must match (extra `constraints`)
    json_schema: str | None = None  # or the JSON schema it must keep

    @property
    def needs_text(self) -> bool:
        """Whether the tokenizer is needed."""
        return bool(self.stop or self.regex or self.json_schema)


class Request(NamedTuple):
    """One prompt; its tokens do not depend on what else is in the batch."""

    ids: list[int]  # never empty
    seed: int = 0
    sampling: Sampling = Sampling()


class Completion(NamedTuple):
    """What a request became.

    `logprobs` are those of the chosen tokens under the unmodified model at the sampling temperature (1 when greedy),
    in fp32; `ids` includes the EOS or stop token that ended it.
    """

    ids: list[int]
    logprobs: list[float]
    finish: Literal["eos", "stop", "length", "error"]
    error: str | None = None


class LoadReport(NamedTuple):
    """What loading took: `peak_bytes` is the largest resident memory above the level before."""

    seconds: float
    weight_bytes: int
    peak_bytes: int
    device: str = "cpu"  # that computes: cpu or cuda


class Availability(NamedTuple):
    """Whether a backend can run here, and if not, why in one line."""

    ok: bool
    reason: str


@dataclass(frozen=True)
class ModelSource:
    """What to serve: a path, or a live model (PPO's policy) instead of it."""

    path: str  # hub id, folder in Hugging Face's format, or one of our run directories (its `export/`)
    adapter: str | None = None  # folder of a PEFT adapter
    dtype: Literal["float32", "bfloat16"] = "float32"
    model: PreTrainedModel | None = None
    tokenizer: PreTrainedTokenizerBase | None = None


class Backend(Protocol):
    """A way to run a causal language model; all backends give the same greedy tokens in fp32."""

    name: str

    def available(self) -> Availability:
        """Whether it can run on this machine with these packages."""
        ...

    def load(self, source: ModelSource) -> LoadReport:
        """Take up a model; a `ValueError` says in one line what is wrong with the source."""
        ...

    def generate(
        self,
        requests: Sequence[Request],
        *,
        batch_size: int | None = None,
        on_token: Callable[[int, int], None] | None = None,
        on_done: Callable[[int, Completion], None] | None = None,
    ) -> list[Completion]:
        """Completions in the order of the requests.

        `batch_size` requests run together; None: as many as the backend was made for. `on_token(request, id)` and
        `on_done(request, completion)` are called as tokens appear and requests finish.
        """
        ...

    def score(self, sequences: Sequence[list[int]]) -> list[list[float]]:
        """Log-probability of every token t >= 1 given those before it: len - 1 numbers a sequence, fp32."""
        ...

    def set_adapter(self, name: str | None) -> None:
        """Switch to an adapter; None gives the base weights."""
        ...

    def memory(self) -> dict[str, int]:
        """Bytes by part: weights, kv_cache, resident, peak."""
        ...

    def close(self) -> None:
        """Give back memory and processes."""
        ...
