"""Ties a run's ranks together so that none waits for a dead one."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from subprocess import Popen
from typing import Any

import lightning
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from alignlab.launch.meeting import meet
from alignlab.launch.rank_watch import Address, RankDied, RankWatch

log = logging.getLogger(__name__)


class RankDeath(Callback):
    """Watches the other ranks from the moment they are started; a single process watches nobody.

    Ranks: all of them hear rank zero's address at the start; afterwards sockets, no exchange.

    Args:
        end: called with the cause when this rank can't end by itself; see `RankWatch`.
    """

    def __init__(self, end: Callable[[RankDied], None]) -> None:
        self.watch = RankWatch(end, self._children)
        self._launcher: WatchedLauncher | None = None
        self._parted = False

    def attach(self, trainer: lightning.Trainer) -> None:
        """Takes the place of Lightning's own observer, which kills rank zero before it can say why."""
        strategy = trainer.strategy
        launcher = strategy.launcher
        if launcher is None and isinstance(strategy, ParallelStrategy) and strategy.cluster_environment is not None:
            # Of ranks that another process has started: FSDP's have none, DDP's do. All must come to the meeting.
            launcher = _SubprocessScriptLauncher(
                strategy.cluster_environment, strategy.num_processes, strategy.num_nodes
            )
        if type(launcher) is _SubprocessScriptLauncher:
            self._launcher = WatchedLauncher(launcher, self.watch)
            strategy._launcher = self._launcher

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        if trainer.world_size == 1:
            return
        address = _listen(self.watch, trainer.world_size) if trainer.global_rank == 0 else None
        address = trainer.strategy.broadcast(address)
        if trainer.global_rank > 0 and address is not None:
            try:
                self.watch.join(Address(*address), trainer.global_rank)
            except OSError as error:
                log.warning("rank %d doesn't reach rank 0 at %s:%d (%s)", trainer.global_rank, *address[:2], error)

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block that ends on all ranks in order, or with the cause if it fails because one died.

        Raises:
            RankDied: instead of the error that a collective operation with a dead rank has given.
        """
        try:
            yield
        except ValueError:  # an error of this rank's own
            raise
        except Exception as error:
            cause = self.watch.cause()
            if cause is not None:
                raise RankDied(cause) from error
            raise
        except BaseException:
            self._part()
            raise
        self._part()

    def leave(self) -> None:
        """To be called when everything is written; after a failure nobody waits."""
        if self._parted:
            self.watch.leave()

    def _part(self) -> None:
        self._parted = True
        self.watch.part()

    def _children(self) -> Mapping[int, Popen]:
        return dict(enumerate(self._launcher.procs, start=1)) if self._launcher is not None else {}


class WatchedLauncher(_SubprocessScriptLauncher):
    """Lightning's launcher of further ranks with `RankWatch` instead of its observer."""

    def __init__(self, launcher: _SubprocessScriptLauncher, watch: RankWatch) -> None:
        super().__init__(launcher.cluster_environment, launcher.num_processes, launcher.num_nodes)
        self._watch = watch

    def launch(self, function: Callable, *args: Any, trainer: lightning.Trainer | None = None, **kwargs: Any) -> Any:
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            self._call_children_scripts()
            self._watch.watch_children()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        self._meet()
        return function(*args, **kwargs)

    def _meet(self) -> None:
        """All ranks come together here, and not in a call that hears no signal."""
        environment, world_size = self.cluster_environment, self.num_processes * self.num_nodes
        if world_size > 1:
            first = environment.node_rank() * self.num_processes
            children = dict(enumerate(self.procs, start=first + 1))
            address = environment.main_address, environment.main_port
            try:
                meet(first + environment.local_rank(), world_size, *address, children=children)
            except BaseException:
                for process in self.procs:  # they would wait for this one
                    process.terminate()
                raise


def _listen(watch: RankWatch, world_size: int) -> tuple | None:
    host = os.environ.get("MASTER_ADDR", "127.0.0.1")
    try:
        return tuple(watch.listen(host, world_size))
    except OSError as error:
        log.warning("ranks aren't watched: rank 0 can't listen at %s (%s)", host, error)
        return None
