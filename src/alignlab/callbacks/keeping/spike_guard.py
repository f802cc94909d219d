"""Takes back steps whose loss or gradient jumps out of what the last steps had: `log`, `skip` the batch, or `rollback`
and skip the window.

    z = max over signals of (x - median) / max(1.4826 MAD, floor)     x: the loss; the logarithm of the gradient's norm

over the last `window` healthy steps of this rank; MAD is the median distance from the median, which 1.4826 makes the
standard deviation of a normal distribution. The floor is 1 % of the median loss, and 0.05 for the logarithm. All ranks
act on the largest z of any.
"""

import json
import logging
import math
import statistics
from collections import deque
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import Tensor

from alignlab.callbacks.keeping.checkpoint import Checkpoints
from alignlab.callbacks.keeping.snapshot import MovingState, Snapshot
from alignlab.callbacks.meters.gradients import BeforeStep
from alignlab.distributed import collectives
from alignlab.files.writing import write_text
from alignlab.systems.diverged import Diverged

log = logging.getLogger(__name__)


class SpikeGuard(BeforeStep):
    """Keeps spikes out of the weights; events go to `spikes.jsonl` in the run directory.

    Ranks: all of them act on the largest z of any, one exchange a step.

    After a skip everything is as if the batch had never been drawn: teacher, queues, random states, schedule, step.
    After a rollback everything is as if none of the batches since the snapshot had been; the run goes on behind the
    spike (PaLM did so by hand, arXiv:2204.02311, sec. 5.1). A loss that isn't finite is a spike. The decision needs
    the loss on the host: a GPU is waited for at every step.

    Args:
        action: "log" only notes spikes.
        threshold: smallest z of a spike.
        window, min_history: healthy steps that are compared with, and how many there must be before anything counts as
            a spike.
        rollback_steps: steps between snapshots in host memory; the older of the last two is gone back to, so between
            one and two times so many steps.
        max_rollbacks, max_skips: of one run; one more ends it as diverged.
    """

    def __init__(
        self,
        action: Literal["log", "skip", "rollback"] = "skip",
        threshold: float = 10.0,
        window: int = 100,
        min_history: int = 20,
        rollback_steps: int = 100,
        max_rollbacks: int = 5,
        max_skips: int = 50,
    ) -> None:
        if action not in ("log", "skip", "rollback"):
            raise ValueError(f'action is {action!r}; it must be "log", "skip" or "rollback"')
        if threshold <= 0 or not 2 <= min_history <= window or rollback_steps < 1:
            raise ValueError(
                f"threshold={threshold} must be positive, 2 <= min_history={min_history} <= window={window},"
                f" rollback_steps={rollback_steps} at least 1"
            )
        self.action, self.threshold, self.min_history, self.rollback_steps = (
            *(action, threshold, min_history),
            rollback_steps,
        )
        self.most = {"skip": max_skips, "rollback": max_rollbacks}
        self.history: deque[tuple[float, ...]] = deque(maxlen=window)
        self.taken_back = 0  # skips or rollbacks so far
        self.intervenes = False  # in the present step
        self._moving: MovingState | None = None
        self._snapshots: deque[tuple[Snapshot, list, int]] = deque(maxlen=2)  # with the history and batch of their time
        self._healthy = 0  # steps
        self._known: list[int] = []  # what moves, from before the run was resumed
        self._logged_step: int | None = None

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self.action == "log":
            return
        why = (
            "an optimizer that the system steps itself"
            if not pl_module.automatic_optimization
            else "DeepSpeed, which steps its optimizer itself"
            if isinstance(trainer.strategy, DeepSpeedStrategy)
            else "float16 with its scaler of losses"
            if trainer.precision == "16-mixed"
            else None
        )
        if why:
            raise ValueError(f"spike_guard: action={self.action} doesn't work with {why}; action=log does")

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._moving = MovingState(pl_module, self._known)
        file = Path(trainer.default_root_dir) / "spikes.jsonl"
        if trainer.is_global_zero and file.exists():  # a resumed run meets some of them again
            done = trainer.fit_loop.epoch_loop.batch_progress.total.completed
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
            whole = [line for line in lines if line.endswith("\n")]
            write_text(file, "".join(line for line in whole if json.loads(line)["batch"] < done))

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._correct_logged_step(trainer)
        if self.action == "log" or batch_idx % trainer.accumulate_grad_batches:
            return
        self._moving.take_down(trainer)
        last = self._snapshots[-1][0].step if self._snapshots else -math.inf
        # Not before the third step: by then it has been seen what moves besides the trained parameters.
        if self.action == "rollback" and self._healthy >= 2 and trainer.global_step >= last + self.rollback_steps:
            snapshot = Snapshot.of(trainer, pl_module, self._moving)
            self._snapshots.append((snapshot, list(self.history), trainer.fit_loop.total_batch_idx))

    def look(self, trainer: Any, module: Any, optimizer: Any, loss: Tensor | None, norm: Tensor | None) -> None:
        """Judges the step; one that is to be taken back leaves the optimizer nothing to do."""
        loss, norm = (math.nan if x is None else float(x) for x in (loss, norm))
        signals = (loss, norm if math.isnan(norm) else math.log(max(norm, 1e-30)))
        own = self.score(signals)
        z = float(collectives.reduce_max(torch.tensor(own, device=module.device, dtype=torch.float64)))
        if z < self.threshold:
            self.history.append(signals)
            self._healthy += 1
            return
        self.intervenes = self.action != "log"
        event = {"step": trainer.global_step, "batch": trainer.fit_loop.total_batch_idx, "z": _json(z)}
        event |= {"loss": _json(loss), "gradient_norm": _json(norm), "action": self.action}
        if self.intervenes:
            self._count(trainer, event)
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None  # the optimizer passes over what has none
        self._note(trainer, event)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self.intervenes:
            return
        self.intervenes = False
        if self.action == "skip":
            self._moving.put_back(trainer)
        else:
            snapshot, history, _ = self._snapshots[0]
            snapshot.put_back(trainer, pl_module, self._moving)
            self.history = deque(history, maxlen=self.history.maxlen)
            self._snapshots = deque([self._snapshots[0]], maxlen=2)
            for logger in trainer.loggers:
                getattr(logger, "forget_after", lambda _: None)(trainer.fit_loop.epoch_loop._batches_that_stepped)
            for callback in trainer.callbacks:
                if isinstance(callback, Checkpoints):
                    callback.went_back(trainer)
        self._logged_step = trainer.fit_loop.epoch_loop._batches_that_stepped

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._correct_logged_step(trainer)

    def score(self, signals: tuple[float, ...]) -> float:
        """z of a step's signals, infinite where one isn't finite; 0 while there is too little to compare with."""
        if any(math.isnan(x) or x == math.inf for x in signals):
            return math.inf
        if len(self.history) < self.min_history:
            return 0.0
        scores = []
        for x, past, floor in zip(signals, zip(*self.history, strict=True), (None, 0.05), strict=True):
            middle = statistics.median(past)
            spread = 1.4826 * statistics.median(abs(y - middle) for y in past)
            scores.append((x - middle) / max(spread, 0.01 * abs(middle) if floor is None else floor, 1e-12))
        return max(scores)

    def state_dict(self) -> dict[str, Any]:
        moving = self._known if self._moving is None else self._moving.moving
        histories = collectives.gather_objects(list(self.history))  # every rank has its own
        return {"histories": histories, "taken_back": self.taken_back, "healthy": self._healthy, "moving": moving}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        histories = state_dict["histories"]
        own = histories[collectives.rank() if len(histories) == collectives.world_size() else 0]
        self.history.extend(tuple(signals) for signals in own)
        self.taken_back, self._healthy = state_dict["taken_back"], state_dict["healthy"]
        self._known = state_dict["moving"]

    def _count(self, trainer: lightning.Trainer, event: dict[str, Any]) -> None:
        self.taken_back += 1
        if self.action == "rollback" and self._snapshots:
            snapshot, _, batch = self._snapshots[0]
            event |= {"back_to_step": snapshot.step, "skipped_batches": [batch, event["batch"]]}
        can = self._snapshots if self.action == "rollback" else self._healthy >= 2
        if self.taken_back > self.most[self.action] or not can:
            self._note(trainer, event)
            why = f"max_{self.action}s={self.most[self.action]} are used up" if can else "it is too early to go back"
            raise Diverged(f"spike at step {event['step']} (loss {event['loss']}) and the spike guard: {why}")

    def _note(self, trainer: lightning.Trainer, event: dict[str, Any]) -> None:
        if trainer.is_global_zero:
            log.warning("spike at step %(step)s: loss %(loss)s, z %(z)s: %(action)s", event)
            with (Path(trainer.default_root_dir) / "spikes.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")

    def _correct_logged_step(self, trainer: lightning.Trainer) -> None:
        """The loggers' step, which Lightning has moved on after the step that was taken back."""
        if self._logged_step is not None:
            trainer.fit_loop.epoch_loop._batches_that_stepped, self._logged_step = self._logged_step, None


def _json(x: float) -> float | None:
    return round(x, 6) if math.isfinite(x) else None
