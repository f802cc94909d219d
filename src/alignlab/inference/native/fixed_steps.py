"""Decode steps whose tensors never move, as CUDA graphs want them: weights, cache, positions, settings and results at
fixed addresses.

Legend: R rows (a power of two), S columns of the cache, B rows of a step (R, or a smaller power of two once rows have
left), C columns that a step looks at, T new tokens, V vocabulary. Rows that have ended run on until the rest fits into
half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from alignlab.distributed.devices import fetched, sent
from alignlab.inference.backend import Request, Sampling
from alignlab.inference.native.cuda_graphs import Recorded, Recorder
from alignlab.inference.native.decoder import Cache, Decoder, FixedCache
from alignlab.inference.native.kernels.gpu_step import GpuStep
from alignlab.inference.sampling import COLUMNS, Choice, choose, prompts, table, uniform

FEWEST_COLUMNS = 128
GREEDY = Choice()
MOST_PROMPT_TOKENS = 2048  # of prompts that are recorded
MOST_GRAPHS = 256  # beyond, all are forgotten: requests of ever new shapes would fill the memory


def row_count(rows: int) -> int:
    """The power of two that holds them."""
    return 1 << (rows - 1).bit_length()


def column_count(columns: int) -> int:
    """The power of two, or three halves of one, that holds them: at most a third is too much."""
    power = max(FEWEST_COLUMNS, 1 << (columns - 1).bit_length())
    return power // 4 * 3 if columns <= power // 4 * 3 and power > FEWEST_COLUMNS else power


def prompt_count(rows: int, columns: int) -> int:
    """Columns of prompts that end together, as many as are recorded: at most an eighth too many, or 15.

    Prompts of many tokens keep the device busy longer than the host takes to launch them: they run as they are.
    """
    step = max(16, (1 << (columns - 1).bit_length()) // 8)
    return -(-columns // step) * step if rows * columns <= MOST_PROMPT_TOKENS else columns


class FixedBatch:
    """Buffers for batches of R rows and S columns, and the steps that read and write them; batches use it one after
    the other.

    Args:
        keys: memory of the cache, and `values`, shared with batches of other shapes.
        kernels: a step as kernels of our own, where there is one.
    """

    def __init__(
        self,
        decoder: Decoder,
        rows: int,
        columns: int,
        keys: Tensor,
        values: Tensor,
        recorder: Recorder,
        kernels: GpuStep | None = None,
    ) -> None:
        self.decoder, self.rows, self.columns, self._recorder, self._kernels = decoder, rows, columns, recorder, kernels
        shape = decoder.cache_shape(rows, columns)
        size = torch.Size(shape).numel()
        self.keys, self.values = keys[:size].view(shape), values[:size].view(shape)
        zeros = partial(torch.zeros, device=decoder.device)
        self.ids = zeros(rows, 1, dtype=torch.long)  # of the next step
        self.prompt = zeros(rows, columns, dtype=torch.long)
        self.starts = zeros(rows, dtype=torch.long)  # each row's first column that is not padding
        self.at = zeros(1, dtype=torch.long)  # the column that the next step writes
        self.count = zeros(1, dtype=torch.long)  # tokens that were chosen
        self.table = zeros(rows, COLUMNS, dtype=torch.float32)  # settings
        self.uniform = zeros(rows, columns, dtype=torch.float64)  # random numbers, a column a token
        self.told = zeros(rows, columns, 2, dtype=torch.float64)  # tokens and log-probabilities
        self.seen: Tensor | None = None  # (R, V), from the first batch with penalties on
        self._steps: dict[tuple[int, int, Choice], Recorded] = {}
        self._prompts: dict[tuple[int, int, Choice], Recorded] = {}
        self.choice = Choice()

    def buffers(self) -> dict[str, Tensor]:
        """All that steps read and write, by name."""
        names = ("keys", "values", "prompt", "ids", "starts", "at", "count", "table", "uniform", "told", "seen")
        return {name: tensor for name in names if (tensor := getattr(self, name)) is not None}

    def begin(self, requests: Sequence[Request], ids: Tensor, starts: Sequence[int], tokens: int) -> None:
        """Takes up a batch, runs its prompts and chooses the first token of each row.

        Args:
            ids: of the prompts, which end together, on the host: (rows, P).
            tokens: T, of the longest.
        """
        vocabulary, length, empty = self.decoder.architecture.vocabulary, ids.shape[1], self.rows - len(requests)
        settings = [request.sampling for request in requests]
        self.choice = Choice.of(settings, vocabulary)
        numbers = [table([*settings, *[Sampling()] * empty], vocabulary).double()]
        if self.choice.sampled:
            numbers.append(torch.cat([uniform(requests, tokens), torch.zeros(empty, tokens, dtype=torch.float64)]))
        together = sent(torch.cat(numbers, 1), self.decoder.device)  # one copy
        self.table.copy_(together[:, :COLUMNS])
        self.uniform[:, : together.shape[1] - COLUMNS].copy_(together[:, COLUMNS:])
        self.starts.copy_(sent(torch.tensor([*starts, *[length] * empty]), self.decoder.device))
        self.at.fill_(length)
        self.count.zero_()
        self.keys.zero_()  # what the mask hides must still be a number
        self.values.zero_()
        if self.choice.penalised:
            if self.seen is None:
                self.seen = torch.zeros(self.rows, vocabulary, dtype=torch.bool, device=self.decoder.device)
            self.seen.zero_()
            self.seen[: len(requests)].scatter_(1, sent(prompts(requests), self.decoder.device), True)
        if self.rows * length <= MOST_PROMPT_TOKENS:
            self.prompt[: len(requests), :length].copy_(sent(ids, self.decoder.device))
            key = (self.rows, length, self.choice)
            if key not in self._prompts:
                self._prompts[key] = Recorded(partial(self._run_prompts, length, self.choice), self._recorder)
            self._prompts[key]()
            return
        cache = Cache(self.keys[:, : len(requests)], self.values[:, : len(requests)], starts)
        logits = self.decoder.logits(self.decoder.hidden(sent(ids, self.decoder.device), cache)[:, -1])
        self._take(torch.cat([logits, logits.new_zeros(empty, vocabulary)]), self.choice)

    def step(self, rows: int, columns: int) -> None:
        """One further token of the first `rows` rows, whose cache ends before column `columns`."""
        key = (rows, columns, self.choice)
        if key not in self._steps:
            self._steps[key] = Recorded(partial(self._run, rows, columns, self.choice), self._recorder)
        self._steps[key]()

    def _run_prompts(self, length: int, choice: Choice) -> None:
        """The same for the first `length` columns of all rows."""
        at = torch.arange(length, device=self.decoder.device)
        cache = FixedCache(self.keys[:, :, :, :length], self.values[:, :, :, :length], self.starts, at)
        self._take(self.decoder.logits(self.decoder.states(self.prompt[:, :length], cache)[:, -1]), choice)

    def _run(self, rows: int, columns: int, choice: Choice) -> None:
        """What a graph holds: it depends on tensors alone, and never waits for the device."""
        keys, values = self.keys[:, :rows, :, :columns], self.values[:, :rows, :, :columns]
        cache, ids = FixedCache(keys, values, self.starts[:rows], self.at), self.ids[:rows]
        kernels, greedy = self._kernels, choice == GREEDY
        if kernels is not None and greedy and kernels.likeliest(ids, cache, self.count, self.told[:rows]):
            return
        logits = None if kernels is None else kernels.logits(ids, cache)
        if logits is None:
            logits = self.decoder.logits(self.decoder.states(ids, cache)[:, -1])
        self.at.add_(1)
        self._take(logits, choice)

    def _take(self, logits: Tensor, choice: Choice) -> None:
        """Chooses from (B, V) logits and keeps the result."""
        rows = len(logits)
        number = self.uniform[:rows].index_select(1, self.count) if choice.sampled else None
        seen = self.seen[:rows] if choice.penalised else None
        chosen, logprobs = choose(logits, self.table[:rows], choice, number, seen)
        self.ids[:rows, 0].copy_(chosen)
        pair = torch.stack([chosen.double(), logprobs.double()], -1)
        self.told[:rows].index_copy_(1, self.count, pair[:, None])
        self.count.add_(1)

    def keep(self, rows: Sequence[int]) -> None:
        """Moves these rows to the front."""
        index, count = sent(torch.tensor(rows), self.decoder.device), len(rows)
        small = [self.ids, self.starts, self.table, self.uniform, *([] if self.seen is None else [self.seen])]
        for tensor in (*small, *self.keys, *self.values):  # layer by layer: a second copy of little only
            tensor[:count] = tensor[index]

    def read(self, rows: int, first: int, last: int) -> Callable[[], list]:
        """Starts to fetch tokens `first` to `last`: their numbers come as (rows, tokens, [id, log-probability])."""
        return fetched(self.told[:rows, first:last], self._recorder.streams)

    def recorded(self) -> int:
        """How many steps of different shapes it has."""
        return len(self._steps) + len(self._prompts)


class FixedSteps:
    """Batches by shape, for the life of a backend's model.

    All lie in one piece of memory, which grows with the largest.

    Args:
        fuse: a step by Triton kernels where they know the decoder.
    """

    def __init__(self, decoder: Decoder, fuse: bool = True) -> None:
        self.decoder, self.recorder = decoder, Recorder(decoder.device)
        self.kernels = GpuStep.of(decoder) if fuse else None
        self.batches: dict[tuple[int, int], FixedBatch] = {}
        self._keys = self._values = decoder.final_norm.weight.new_empty(0)

    def batch(self, rows: int, columns: int) -> FixedBatch:
        """The buffers for a batch of so many rows and columns."""
        shape = row_count(rows), column_count(columns)
        size = torch.Size(self.decoder.cache_shape(*shape)).numel()
        if size > len(self._keys) or sum(batch.recorded() for batch in self.batches.values()) > MOST_GRAPHS:
            self.batches.clear()  # with the graphs that know the old addresses
        if size > len(self._keys):
            self._keys = self._values = self._keys.new_empty(0)  # freed first
            self._keys, self._values = (self._keys.new_zeros(size) for _ in range(2))
        if shape not in self.batches:
            memory = self._keys, self._values
            self.batches[shape] = FixedBatch(self.decoder, *shape, *memory, self.recorder, self.kernels)
        return self.batches[shape]

    def bytes(self) -> int:
        """Size of the cache."""
        return self._keys.nbytes + self._values.nbytes
