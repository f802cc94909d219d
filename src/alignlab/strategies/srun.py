"""Tells Lightning what `alignlab.launch` has found out about Slurm, which it would judge by the job's name."""

import os
import signal

from lightning.fabric.plugins.environments import ClusterEnvironment, LightningEnvironment, SLURMEnvironment

from alignlab.launch.environment import launch


class Srun(SLURMEnvironment):
    """Tasks of one srun as ranks: also those of an `salloc`, without --ntasks-per-node, and of several srun beside each
    other in one job.
    """

    def __init__(self) -> None:
        ClusterEnvironment.__init__(self)  # Lightning's own refuses --ntasks
        self.auto_requeue, self.requeue_signal = False, signal.SIGUSR1  # the run's own inbox takes it back

    @property
    def main_address(self) -> str:
        nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST", "127.0.0.1")
        return os.environ.setdefault("MASTER_ADDR", self.resolve_root_node_address(nodes))

    @property
    def main_port(self) -> int:
        job, step = int(os.environ.get("SLURM_JOB_ID", 0)), int(os.environ.get("SLURM_STEP_ID", 0))
        return int(os.environ.setdefault("MASTER_PORT", str(15000 + (31 * job + step) % 15000)))

    def world_size(self) -> int:
        return launch().world_size

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Nothing: `launch.admission` has compared them before the run began."""


def cluster_environment() -> ClusterEnvironment | None:
    """What is to tell Lightning of ranks; None: it finds out by itself."""
    starter = launch().starter
    if starter == "slurm":
        return Srun()
    return LightningEnvironment() if starter != "torchrun" and "SLURM_NTASKS" in os.environ else None
