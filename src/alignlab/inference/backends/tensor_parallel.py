"""`backend=tensor_parallel`: our own column and row split over processes (arXiv:1909.08053, section 3), each reading
only its slices.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from alignlab.inference.native.backend import NativeBackend
from alignlab.inference.native.decoder import Decoder
from alignlab.inference.native.linears import FastLinear
from alignlab.inference.native.loading import DecoderReader
from alignlab.inference.processes.parallel import Gather, reduce_over_ranks
from alignlab.inference.processes.process_backend import ProcessBackend, Served


class TensorParallelRank(NativeBackend):
    """One process's part: `qkv` and `up` cut by output, `out` and `down` by input, embedding and head by vocabulary."""

    name = "tensor_parallel"

    def __init__(self, rank: int, ranks: int, batch_size: int) -> None:
        super().__init__(batch_size)
        self.rank, self.ranks = rank, ranks

    def build(self, reader: DecoderReader) -> Decoder:
        shards = [reader.architecture.split(rank, self.ranks) for rank in range(self.ranks)]
        reader.shard, reader.make = shards[self.rank], FastLinear
        sizes = [shard.vocabulary[1] - shard.vocabulary[0] for shard in shards]
        return reader.decoder(reduce=reduce_over_ranks, gather=Gather(sizes))


class TensorParallelBackend(ProcessBackend):
    """Attention heads, MLP and vocabulary split over processes of this machine; heads need not divide evenly.

    Args:
        processes: how many; each holds about 1 / processes of the weights and of the cache.
        batch_size: requests that run together.
    """

    name = "tensor_parallel"

    def __init__(self, processes: int = 2, batch_size: int = 32) -> None:
        super().__init__(processes)
        self.batch_size = batch_size

    def rank(self) -> Callable[[int, int], Served]:
        return partial(_served, batch_size=self.batch_size)


def _served(rank: int, ranks: int, batch_size: int) -> Served:
    return Served(TensorParallelRank(rank, ranks, batch_size))
