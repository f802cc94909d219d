"""From rows to batches of a process: the order over ranks, loaders that can be resumed, batches made whole in the
worker.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from alignlab.distributed.machine import cores


class JointOrder(Sampler[int]):
    """Serial numbers of one epoch: `epoch * length + 0..length-1`. What lies at a serial number is the source's
    choice.

    With `repeats`, for evaluation, every epoch has the numbers of the first.
    """

    def __init__(self, length: int, repeats: bool = False) -> None:
        self.length, self.epoch, self.repeats = length, 0, repeats

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch, of validation loaders too."""
        self.epoch = 0 if self.repeats else epoch

    def __iter__(self) -> Iterator[int]:
        start = self.epoch * self.length
        return iter(range(start, start + self.length))

    def __len__(self) -> int:
        return self.length


class JointBatches(Sampler[list[int]]):
    """This rank's part of the joint batches.

    Step s holds the numbers s B R + r B + (0 .. B-1) for rank r of R with B pairs per process, so that R ranks with B
    see in each step what one rank with R B sees. `last` says what happens to an incomplete last batch: "drop", or
    "share" it equally (fewer than R pairs are left out). Batches beyond the last multiple of `multiple` are left out.
    `ramp` says how many of its pairs batch n of the whole training has, the first ones; the others wait for the next
    epoch.
    """

    def __init__(
        self,
        order: JointOrder,
        batch_size: int,
        rank: int,
        world_size: int,
        last: str = "drop",
        smallest: int = 2,
        multiple: int = 1,
        ramp: Callable[[int], int] | None = None,
    ) -> None:
        self.sampler, self.ramp = order, ramp  # the name under which trainers look for `set_epoch`
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.skip = 0  # batches already done in this epoch, after resuming
        full, rest = divmod(len(order), batch_size * world_size)
        self.last_size = rest // world_size if last == "share" and rest // world_size >= smallest else 0
        self.num_batches = (full + bool(self.last_size)) // multiple * multiple

    def __iter__(self) -> Iterator[list[int]]:
        start, joint = self.sampler.epoch * self.sampler.length, self.batch_size * self.world_size
        skip, self.skip = self.skip, 0
        for step in range(skip, self.num_batches):
            size = self.last_size if self.last_size and step == self.num_batches - 1 else self.batch_size
            first = start + step * joint + self.rank * size
            taken = size if self.ramp is None else self.ramp(self.sampler.epoch * self.num_batches + step)
            yield list(range(first, first + taken))

    def __len__(self) -> int:
        return self.num_batches


class BatchLoader(DataLoader):
    """A loader that reports a worker's ValueError (bad data) in one line, like one of the main process."""

    def __iter__(self) -> Iterator:
        try:
            yield from super().__iter__()
        except ValueError as error:
            raise ValueError(str(error).strip().splitlines()[-1].removeprefix("ValueError: ")) from None


class ResumableLoader(BatchLoader):
    """A loader whose place in the epoch is saved in checkpoints; it makes workers at the first batch, after
    `set_epoch`.

    It looks ahead: `step` holds all batches of the present optimizer step, on the host, so that a mean can know the
    count of the whole step.
    """

    seconds_waited = 0.0  # that training stood here for its next batch
    _handed_out = 0
    step: Sequence[Any] = ()
    step_length: Callable[[], int] = staticmethod(lambda: 1)  # batches from the next one on that belong to one step

    def __iter__(self) -> Iterator:
        self._handed_out = self.batch_sampler.skip
        batches = self._timed(super().__iter__())
        while step := list(islice(batches, self.step_length())):
            self.step = step
            for batch in step:
                self._handed_out += 1
                yield batch

    def _timed(self, batches: Iterator) -> Iterator:
        end = object()
        while True:
            begin = time.perf_counter()
            batch = next(batches, end)
            self.seconds_waited += time.perf_counter() - begin
            if batch is end:
                return
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Epoch, number of batches handed out, and how many items one of them has over all ranks."""
        return {"epoch": self.batch_sampler.sampler.epoch, "batch": self._handed_out, "joint": self._joint}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes to the saved place; a finished epoch means the start of the next one.

        With another batch size or number of processes it is the last place that begins a batch: some items may come
        again, none is left out.
        """
        batch = state["batch"] * state.get("joint", self._joint) // self._joint
        finished = batch >= len(self.batch_sampler)
        self.batch_sampler.sampler.set_epoch(state["epoch"] + finished)
        self.batch_sampler.skip = 0 if finished else batch

    @property
    def _joint(self) -> int:
        return self.batch_sampler.batch_size * self.batch_sampler.world_size


def ramp_of(start: float, batches: int, batch_size: int) -> Callable[[int], int] | None:
    """Rows of batch n: from `start` of the batch's size to the whole within so many batches; None where nothing grows.

    Raises ValueError for a start that isn't above 0 and at most 1, and for a negative number.
    """
    if not 0 < start <= 1 or batches < 0:
        raise ValueError(f"batch_start is {start}, batch_ramp {batches}; above 0 and at most 1, and not negative")
    if not batches or start == 1:
        return None
    return lambda n: max(1, round(batch_size * min(1.0, start + (1 - start) * n / batches)))


def training_batches(
    dataset: Dataset, batch_size: int, trainer: Any | None, *loader: int, ramp: Callable[[int], int] | None = None
) -> ResumableLoader:
    """The training loader of a data module: this rank's batches in the epoch's order, the incomplete last one dropped,
    looking ahead over a step.

    A strategy that accumulates gradients by itself (DeepSpeed) counts steps across epochs; there an epoch ends with
    its last complete step.
    `loader`: num_workers and prefetch_factor; `ramp` as `JointBatches` has it. Raises ValueError if there are too few
    rows.
    """
    rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
    accumulated = accumulated_batches(trainer)
    multiple = accumulated if accumulated > 1 and trainer.strategy.handles_gradient_accumulation else 1
    batches = JointBatches(JointOrder(len(dataset)), batch_size, rank, world_size, multiple=multiple, ramp=ramp)
    if not len(batches):
        needed, more = batch_size * world_size * multiple, f", {multiple} batches a step" if multiple > 1 else ""
        raise ValueError(
            f"{len(dataset)} training rows don't fill one batch: batch_size={batch_size} on {world_size} "
            f"processes{more} needs {needed}"
        )
    batches_made = whole_batches(dataset, batches, ResumableLoader, *loader)
    if accumulated > 1:
        batches_made.step_length = partial(_step_length, trainer)
    return batches_made


def accumulated_batches(trainer: Any | None) -> int:
    """How many batches an optimizer step takes; 1 without a trainer, and for whoever stands in for one and doesn't
    say.
    """
    return getattr(trainer, "accumulate_grad_batches", 1)


def _step_length(trainer: Any) -> int:
    """How many batches from the next one on the trainer takes for one optimizer step."""
    done, accumulated = trainer.fit_loop.epoch_loop.batch_progress.current.ready, trainer.accumulate_grad_batches
    return int(max(1, min(accumulated - done % accumulated, trainer.num_training_batches - done)))


def keep_batch(batch: tuple) -> tuple:
    """The collate function: batches are already whole."""
    return batch


def start_worker(_: int) -> None:
    """One thread for each worker: several would only fight for the cores. Signals to the run's process group don't
    reach it.

    A worker that ends by Ctrl-C or SIGTERM would fail the run before it has saved; it ends when the run does.
    """
    os.setpgid(0, 0)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)


def workers_by_cores(processes: int) -> int:
    """Worker processes of each of so many training processes: one core is left to training itself, and more than 8
    help nobody.
    """
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 0)) or min(processes, max(1, torch.cuda.device_count()))
    return max(1, min(8, cores() // here - 1))


def whole_batches(
    dataset: Dataset,
    batches: Sampler[list[int]] | list[list[int]],
    kind: type[BatchLoader] = BatchLoader,
    num_workers: int = 0,
    prefetch_factor: int = 4,
) -> BatchLoader:
    """A loader over a data set that makes whole batches (`__getitems__`) from lists of numbers."""
    workers = (
        {"worker_init_fn": start_worker, "persistent_workers": True, "prefetch_factor": prefetch_factor}
        if num_workers
        else {}
    )
    # An own generator: the loader's draw of a seed must not disturb the random numbers of the training.
    return kind(
        dataset,
        batch_sampler=batches,
        collate_fn=keep_batch,
        num_workers=num_workers,
        generator=torch.Generator(),
        pin_memory=torch.cuda.is_available(),
        **workers,
    )
