"""Where a run is between two steps, in the form from which Lightning goes on exactly there.

Lightning's hooks lie within steps: what it saves there counts the running batch as begun, or a validation as missing.
Here its counters are set to those of the moment between the last step with all that follows it (validation, logging)
and the next.
"""

from typing import Any, NamedTuple

import lightning

from alignlab.callbacks.keeping import random_states
from alignlab.callbacks.keeping.random_states import States
from alignlab.distributed import collectives


class Moment(NamedTuple):
    """What must be taken down before the next batch is fetched."""

    loaders: list[dict[str, Any]]  # places of the training loaders
    random: States  # of this process


def take_down(trainer: lightning.Trainer) -> Moment:
    """The present moment of this process."""
    loader = trainer.fit_loop._combined_loader
    return Moment([] if loader is None else loader._state_dicts(), random_states.capture(trainer.strategy.root_device))


def within_step(trainer: lightning.Trainer) -> bool:
    """Whether a batch was begun and isn't done, or a validation runs: no state from which to go on exactly."""
    now = trainer.fit_loop.epoch_loop.batch_progress.total
    return now.ready != now.completed or trainer.validating


def write_down(trainer: lightning.Trainer, moment: Moment, checkpoint: dict[str, Any], seed: int | None) -> None:
    """Puts the moment into a checkpoint: `loops` as between two steps, `random` of every rank. All ranks call this."""
    fit = checkpoint["loops"]["fit_loop"]
    batches, epochs = fit["epoch_loop.batch_progress"], fit["epoch_progress"]
    for part in ("total", "current"):
        done = batches[part]["processed"]
        batches[part].update(ready=done, started=done, completed=done)
    batches["is_last_batch"] = False
    in_epoch = batches["current"]["processed"]
    if in_epoch and in_epoch >= trainer.num_training_batches:  # the next step is the first of an epoch
        batches["current"].update(ready=0, started=0, processed=0, completed=0)
        _begin_epoch(epochs, after=True)
        in_epoch = 0
    else:
        _begin_epoch(epochs, after=False)
    fit["state_dict"]["combined_loader"] = moment.loaders if in_epoch else []
    checkpoint["random"] = {"seed": seed, "ranks": collectives.gather_objects(moment.random)}


def _begin_epoch(epochs: dict[str, Any], after: bool) -> None:
    """Counts the epoch as begun and not done; with `after` the one after it."""
    for part in ("total", "current"):
        begun = epochs[part]["started"] + after
        epochs[part].update(ready=begun, started=begun, processed=begun - 1, completed=begun - 1)
