"""How high a rate may be: short runs at multiples of it, when they break, what clipping would cut."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alignlab.studies.probes.runs import QUIET, Run, run

MULTIPLES = (1.0, 2.0, 5.0, 10.0)
CLIP_AT = 0.9  # quantile of the norms of a healthy run
HARSH = 0.5  # share of clipped steps from which on clipping is a lower rate in disguise
_RATE = "optim.lr"
_METER = "callbacks.gradients._target_=alignlab.callbacks.meters.gradients.GradientStatistics"
_STEPS = ("trainer.limit_val_batches=0", "trainer.log_every_n_steps=1")


@dataclass(frozen=True)
class Tried:
    """A rate that was tried.

    Attributes:
        verdict: stable, breaks early (in the first third), breaks later, or what the run ended with.
        at: step at which it broke.
        norms: of the gradient before clipping, step by step.
    """

    rate: float
    verdict: str
    at: int | None = None
    last_loss: float | None = None
    norms: tuple[float, ...] = ()

    @property
    def stable(self) -> bool:
        return self.verdict == "stable"


def try_rates(program: Sequence[str], words: Sequence[str], folder: Path, rate: float, steps: int) -> list[Tried]:
    """Runs at 1, 2, 5 and 10 times a rate."""
    told = []
    for multiple in MULTIPLES:
        value = float(f"{rate * multiple:.6g}")
        more = [*_STEPS, *QUIET, _METER, f"trainer.max_steps={steps}", f"optim.lr={value}"]
        done = judged(value, run(program, [*words, *more], folder / f"{multiple:g}"), steps)
        told.append(done)
        print(line(done, multiple), flush=True)
    return told


def judged(rate: float, done: Run, steps: int) -> Tried:
    """What a run says of its rate.

    A loss breaks where its running mean rises above that of the first steps, or by more than half of what it had
    gained.
    """
    norms = tuple(value for _, value in done.told.curves.get("train/gradient_norm", ()))
    losses = np.array([value for _, value in done.told.curves.get("train/loss", ())], dtype=float)
    if done.status == "diverged":
        at = done.result.steps if done.result else len(losses)
        return Tried(rate, _when(at, steps), at, None, norms)
    if done.status != "ok" or len(losses) < 5:
        return Tried(rate, done.status if done.status != "ok" else "too short", None, None, norms)
    width = max(3, len(losses) // 10)
    smooth = np.convolve(losses, np.ones(width) / width, "valid")
    lowest = np.minimum.accumulate(smooth)
    allowed = lowest + np.maximum(0.5 * (smooth[0] - lowest), 0.1 * abs(smooth[0]))
    broken = np.flatnonzero(smooth > allowed)
    last = float(smooth[-1])
    if len(broken) and smooth[-1] > allowed[-1]:  # a spike that it comes back from is none
        at = int(smooth[: broken[0] + 1].argmin()) + width // 2  # where it turned, not where it was noticed
        return Tried(rate, _when(at, steps), at, last, norms)
    return Tried(rate, "stable", None, last, norms)


def line(done: Tried, multiple: float) -> str:
    """What is printed of a rate."""
    at = "" if done.at is None else f" at step {done.at}"
    loss = "" if done.last_loss is None else f", loss {done.last_loss:.4g} at the end"
    norm = f", gradient norm {np.median(done.norms):.3g} in the middle" if done.norms else ""
    return f"{multiple:4g} x {done.rate:<9.3g} {done.verdict}{at}{loss}{norm}"


def advice(told: Sequence[Tried], clip: float | None, max_steps: int | None) -> list[str]:
    """Warm-up and clipping, from what was seen.

    Args:
        clip: the norm that the config clips at now.
        max_steps: of the runs that this is for.
    """
    first = told[0]
    said = []
    broken = next((each for each in told if not each.stable), None)
    if broken is None:
        said.append(
            f"Stable up to {told[-1].rate:.3g}: the rate may be searched that high; instability isn't the limit."
        )
    elif broken is first:
        said.append(f"The rate itself breaks: search below {first.rate:.3g} first.")
    else:
        tenth = "" if max_steps is None else f", at most {max(1, max_steps // 10)} (a tenth of the run)"
        said.append(
            f"Breaks at {broken.rate:.3g} ({broken.verdict}): curing that may allow rates above {first.rate:.3g}. "
            f"Try warm-ups of 10, 100, 1000 steps up to {10 * broken.rate:.3g}, and take twice what holds{tenth}."
        )
        if broken.verdict == "breaks later":
            said.append("It breaks after the first third, where a warm-up doesn't reach: clip the gradient.")
    if first.norms:
        limit = float(np.quantile(first.norms, CLIP_AT))
        said.append(f"Clip at {limit:.3g}, the 90th percentile of the unclipped norms at {first.rate:.3g}.")
        if clip is not None and (share := float(np.mean(np.array(first.norms) > clip))) > HARSH:
            said.append(
                f"Clipping at {clip:g} cuts {share:.0%} of the steps: that is a lower rate in disguise; lower it."
            )
    return said


def _when(at: int, steps: int) -> str:
    return "breaks early" if at <= steps / 3 else "breaks later"
