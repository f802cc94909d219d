"""How fast training data are made, and whether a training step ever waits for them.

    python benchmarks/data_loading.py --step-seconds 0.3

Prints (1) milliseconds for a scene with its caption on one core, with cold and with warm patches; (2) the share of the time that a step of known length
waits for its batch, with the data module as training uses it. The step sleeps: it takes no core from the worker, so give `--busy` to have it
compute instead.
"""

import argparse
import time

from alignlab.data.emoji.scene_pairs import EmojiScenePairs
from alignlab.data.emoji.scenes import EmojiScenes
from alignlab.data.image_text.modules import PairDataModule

import torch
from lightning.fabric.utilities import move_data_to_device
from measuring import check_device, device_option, wait


def milliseconds_per_scene(image_size: int, number: int) -> tuple[float, float]:
    """Of the first `number` scenes of a new process, and of the `number` after twenty times as many."""
    scenes = EmojiScenes(image_size)

    def measure(start: int) -> float:
        begin = time.process_time()
        for index in range(start, start + number):
            scenes.render(scenes.scene(index))
        return 1000 * (time.process_time() - begin) / number

    cold = measure(0)
    for start in range(number, 20 * number, number):
        measure(start)
    return cold, measure(20 * number)


def waiting_share(
    module: PairDataModule, steps: int, step_seconds: float, busy: bool, device: str = "cpu"
) -> tuple[float, float]:
    """Share of the time spent waiting for batches, and samples per second; the first tenth of the steps isn't counted."""
    waited = begin = 0.0
    matrix = torch.randn(512, 512)
    iterator = iter(module.train_dataloader())
    for step in range(steps):
        if step == steps // 10:
            waited, begin = 0.0, time.perf_counter()
        start = time.perf_counter()
        module.on_after_batch_transfer(move_data_to_device(next(iterator), device), 0)
        wait(device)
        waited += time.perf_counter() - start
        end = time.perf_counter() + step_seconds
        while busy and time.perf_counter() < end:
            matrix @ matrix
        time.sleep(max(0.0, end - time.perf_counter()))
    seconds = time.perf_counter() - begin
    return waited / seconds, module.batch_size * (steps - steps // 10) / seconds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--step-seconds", type=float, default=0.3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--image-size", type=int, default=48)
    parser.add_argument("--num-workers", type=int, default=1)
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--busy", action="store_true")
    device_option(parser)
    arguments = parser.parse_args()
    check_device(arguments.device)
    cold, warm = milliseconds_per_scene(arguments.image_size, arguments.scenes)
    print(
        f"{arguments.image_size} px, one core: {cold:.3f} ms a scene cold, {warm:.3f} ms warm ({1000 / warm:.0f} scenes/s)"
    )
    data = PairDataModule(
        EmojiScenePairs,
        batch_size=arguments.batch_size,
        image_size=arguments.image_size,
        num_workers=arguments.num_workers,
    )
    data.setup()
    share, speed = waiting_share(data, arguments.steps, arguments.step_seconds, arguments.busy, arguments.device)
    setting = f"{arguments.num_workers} workers, batch {arguments.batch_size}, steps of {arguments.step_seconds} s"
    print(f"{setting}: {100 * share:.2f} % waiting, {speed:.0f} samples/s")
