"""How large a batch may be: throughput by powers of two until it is saturated or memory is out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alignlab.studies.probes.runs import QUIET, Run, run

SATURATED = 1.2  # times the throughput, less than which twice the batch isn't worth it
WAITS = 0.2  # of the time, from which on the data are what is slow
SIZE = "data.batch_size"  # key of a process's batch, on the command line that is put together here
_STEPS = ("trainer.limit_val_batches=0", "trainer.log_every_n_steps=5", "trainer.gradient_clip_val=null")


@dataclass(frozen=True)
class Measured:
    """A batch size that was tried.

    Attributes:
        samples_per_second: without the first three steps.
        wait: share of the time that training stood waiting for batches.
    """

    size: int
    status: str
    samples_per_second: float | None = None
    wait: float | None = None
    peak_bytes: int = 0
    reason: str | None = None


def sizes(smallest: int, largest: int) -> list[int]:
    """Powers of two times the smallest size."""
    if smallest < 1 or largest < smallest:
        raise ValueError(f"smallest={smallest} is at least 1, and largest={largest} not below it")
    return [smallest * 2**k for k in range((largest // smallest).bit_length())]


def measure(
    program: Sequence[str], words: Sequence[str], folder: Path, steps: int, smallest: int, largest: int
) -> list[Measured]:
    """Tries sizes one after another; ends when two doublings in a row gave little, or memory was out.

    Raises:
        ValueError: the words are refused, or the smallest size fails.
    """
    told: list[Measured] = []
    for size in sizes(smallest, largest):
        more = [
            *_STEPS,
            *QUIET,
            f"trainer.max_steps={steps}",
            f"data.batch_size={size}",
            "callbacks.data_wait.log=true",
        ]
        done = measured(size, run(program, [*words, *more], folder / str(size)))
        told.append(done)
        print(line(done, told[-2] if len(told) > 1 else None), flush=True)
        if done.status != "ok":
            if len(told) == 1:
                raise ValueError(f"a batch of {size} ended: {done.status}, {done.reason}")
            break
        if len(told) > 2 and all(_gain(*pair) < SATURATED for pair in zip(told[-3:-1], told[-2:], strict=True)):
            break
    return told


def measured(size: int, done: Run) -> Measured:
    """What a run says of its batch size."""
    if done.status != "ok" or done.result is None:
        return Measured(size, done.status, reason=done.reason)
    waited = done.told.curves.get("train/data_wait_share", [])
    wait = waited[-1][1] if waited else None
    return Measured(size, "ok", done.result.samples_per_second, wait, done.result.peak_memory_bytes)


def recommended(told: Sequence[Measured]) -> Measured:
    """The smallest size that was measured with nine tenths of the best throughput."""
    good = [each for each in told if each.samples_per_second]
    if not good:
        raise ValueError("no size has a throughput; try more steps")
    most = max(each.samples_per_second for each in good)
    return next(each for each in good if each.samples_per_second >= 0.9 * most)


def line(done: Measured, before: Measured | None) -> str:
    """What is printed of a size."""
    if done.samples_per_second is None:
        return f"batch {done.size:6}  {done.status}: {done.reason or 'no throughput'}"
    gain = f", {_gain(before, done):.2f} times that of {before.size}" if before and before.samples_per_second else ""
    wait = "" if done.wait is None else f", {done.wait:.0%} of the time waiting for data"
    memory = f", {done.peak_bytes / 2**30:.2f} GiB" if done.peak_bytes else ""
    return f"batch {done.size:6}  {done.samples_per_second:9.1f} samples/s{gain}{wait}{memory}"


def advice(told: Sequence[Measured]) -> list[str]:
    """The recommendation, and why there is none larger."""
    best, last = recommended(told), told[-1]
    said = [f"use a batch of {best.size}: {best.samples_per_second:.1f} samples/s, measured; larger ones give little."]
    if last.status == "out of memory":
        said.append(f"{last.size} runs out of memory; {told[-2].size} is the largest that was seen to fit.")
    elif best is last:
        said[0] = f"use a batch of {best.size}: {best.samples_per_second:.1f} samples/s, measured."
        said.append("The throughput still grows there: --largest allows more.")
    if best.wait is not None and best.wait > WAITS:
        said.append(f"{best.wait:.0%} of the time goes into waiting for data: more num_workers before larger batches.")
    said.append(
        "Another batch size wants its rate, momentum and regularisation tuned again; a contrastive loss is another."
    )
    return said


def _gain(before: Measured, now: Measured) -> float:
    return (now.samples_per_second or 0.0) / (before.samples_per_second or float("inf"))
