"""What a checkpoint costs, beside the step it interrupts and beside Lightning's own way to write it; numbers for docs/checkpoints.md.

    python benchmarks/checkpoints.py albef
    python benchmarks/checkpoints.py clip_vit_b16

A run of a few steps gives the time of a step; after it the same state is written in turn by `StreamedIO` (as every run does) and by Lightning's
`TorchCheckpointIO`, `--rounds` times each. Both must end with the file on disk: Lightning's doesn't ask for that, so the same fsync follows it here.
From the medians: after how many steps the next checkpoint is due by default, and which share of the time it takes.
Last, the same for a whole run with checkpoints at the default interval (`--steps`), as it was and not as it was reckoned.
"""

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from alignlab.configs.command_line import arguments

from hydra import compose, initialize_config_dir

from alignlab.runs import train as run  # isort: skip  (before lightning)
from alignlab.callbacks.keeping.checkpoint import Checkpoints, StreamedIO
from alignlab.callbacks.keeping.checkpoint_folder import sync

import lightning
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback
from measuring import check_device, device_option, hardware

CONF = Path(__file__).resolve().parent.parent / "conf"
CASES = {
    "albef": (
        *("experiment=albef_emoji_scenes", "~callbacks.retrieval", "model.momentum=0.995", "model.alpha=0.4"),
        *("model.queue_size=4096", "model.teach_from_step=0"),
    ),
    "clip_vit_b16": (
        *("model=clip", "model/net=clip_vit_b16", "data.image_size=224", "data.batch_size=8"),
        *("data.num_train=800", "data.num_val=16"),
    ),
}


class StepTimes(Callback):
    """Seconds from the start of a step to the start of the next."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.starts.append(time.perf_counter())

    def seconds(self) -> list[float]:
        return [b - a for a, b in zip(self.starts[1:], self.starts[2:], strict=False)]  # without the first


def trained(case: str, folder: Path, steps: int, trainer: str) -> tuple[lightning.Trainer, StepTimes]:
    """A trainer whose run of so many steps is over, still attached to its state."""
    overrides = [*CASES[case], "callbacks=default", f"trainer.max_steps={steps}", f"trainer={trainer}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=arguments([*overrides, "trainer.val_check_interval=1000000"]))
    cfg.run_name = case
    datamodule, system = run.build(cfg)
    trainer, times = run.build_trainer(cfg, folder), StepTimes()
    trainer.callbacks.insert(0, times)
    trainer.limit_val_batches = 0
    trainer.fit(system, datamodule=datamodule)
    return trainer, times


def written(trainer: lightning.Trainer, io: TorchCheckpointIO, file: Path) -> float:
    """Seconds that a checkpoint takes, from collecting the state to the file on disk."""
    file.unlink(missing_ok=True)
    trainer.strategy.checkpoint_io = io
    begin = time.perf_counter()
    trainer.save_checkpoint(file)
    sync(file)
    return time.perf_counter() - begin


def main() -> None:
    """Prints the table of one case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=CASES, nargs="?", default="albef")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6, help="of the run; above some 50, checkpoints fall within it")
    device_option(parser)
    options = parser.parse_args()
    check_device(options.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trainer, times = trained(options.case, folder, options.steps, "cpu" if options.device == "cpu" else "gpu")
        own = next(c for c in trainer.callbacks if isinstance(c, Checkpoints))
        kinds = {"alignlab": StreamedIO(), "Lightning": TorchCheckpointIO()}
        seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(options.rounds):
            for kind, io in kinds.items():
                seconds[kind].append(written(trainer, io, folder / f"{kind}.ckpt"))
        size = (folder / "alignlab.ckpt").stat().st_size
    step = statistics.median(times.seconds())
    print(f"{options.case}: {size / 1e6:.0f} MB, {hardware(options.device)}; a step takes {step:.3f} s")
    for kind, values in seconds.items():
        print(f"  {kind:10s} {statistics.median(values):.3f} s a checkpoint ({min(values):.3f} to {max(values):.3f})")
    cost = statistics.median(seconds["alignlab"])
    interval = max(1, math.ceil(cost / (own.share * step)))
    print(
        f"  by default every {interval} steps ({interval * step:.0f} s): {100 * cost / (interval * step):.2f} % of the time"
    )
    within = own.seconds[:-1]  # the last one comes after training
    if within:
        whole = times.starts[-1] - times.starts[0]
        print(
            f"  in a run of {options.steps} steps: {len(within)} checkpoints, {100 * sum(within) / whole:.2f} % of {whole:.0f} s"
        )


if __name__ == "__main__":
    main()
