"""Pictures a second and core from tar shards: ours beside `webdataset` with PIL used plainly, on the same shards.

    python benchmarks/shards.py --pictures 2000 --rounds 5

Both decode, crop at random and resize to a square. Sides take turns; what counts is CPU time of one process, so that other work on the machine
disturbs less. Needs the package webdataset (extra: bench). Pictures are drawn once: scenes of emoji over noise, JPEG of quality 90.
"""

import argparse
import io
import json
import random
import resource
import statistics
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from alignlab.data.emoji.scenes import EmojiScenes
from alignlab.data.image_text.augmentation import random_resized_crop
from alignlab.data.image_text.pairs import ImageTextPairs

import numpy as np
import webdataset
from PIL import Image

SCALE = (0.5, 1.0)


def write_shards(folder: Path, number: int, size: tuple[int, int], shards: int) -> None:
    """`number` JPEG files of `size` with captions."""
    scenes, rng = EmojiScenes(96), np.random.default_rng(0)
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:03d}.tar", "w") as tar:
            for n in range(shard * number // shards, (shard + 1) * number // shards):
                scene = scenes.scene(n)
                picture = np.asarray(
                    Image.fromarray(scenes.render(scene)).resize(size, Image.Resampling.BICUBIC), np.int16
                )
                picture = (picture + rng.normal(0, 12, picture.shape)).clip(0, 255).astype(np.uint8)
                out = io.BytesIO()
                Image.fromarray(picture).save(out, "JPEG", quality=90)
                texts = {".jpg": out.getvalue(), ".txt": scene.caption.encode(), ".json": json.dumps({"n": n}).encode()}
                for suffix, content in texts.items():
                    info = tarfile.TarInfo(f"{n:08d}{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def ours(folder: Path, size: int, epochs: int, cache_gb: float) -> Iterator[float]:
    """CPU seconds a picture in each epoch."""
    source = ImageTextPairs(str(folder), size, val_share=0.01, crop_scale=SCALE, cache_gb=cache_gb)
    for epoch in range(epochs):
        begin = time.process_time()
        for serial in range(source.num_train):
            source.train_pair(epoch * source.num_train + serial)
        yield (time.process_time() - begin) / source.num_train


def plainly(folder: Path, size: int) -> float:
    """The same of webdataset's own pipeline."""
    rng = random.Random(0)
    urls = [str(file) for file in sorted(folder.glob("*.tar"))]
    data = (
        webdataset.WebDataset(urls, shardshuffle=len(urls), empty_check=False)
        .shuffle(1000)
        .decode("pilrgb")
        .to_tuple("jpg", "txt")
    )
    begin, number = time.process_time(), 0
    for picture, _ in data:
        np.asarray(random_resized_crop(picture, size, SCALE, rng))
        number += 1
    return (time.process_time() - begin) / number


def megabytes() -> float:
    """Largest resident memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--size", type=int, default=224, help="of the square")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_shards(folder, options.pictures, (options.width, options.height), options.shards)
        begin = time.process_time()
        ImageTextPairs(str(folder), options.size, val_share=0.01, cache_gb=0.0)
        print(
            f"going through the shards once: {1e6 * (time.process_time() - begin) / options.pictures:.0f} us a sample"
        )
        times: dict[str, list[float]] = {"webdataset": [], "alignlab": [], "alignlab, second epoch with cache": []}
        for _ in range(options.rounds):
            times["webdataset"].append(plainly(folder, options.size))
            times["alignlab"].extend(ours(folder, options.size, 1, 0.0))
        times["alignlab, second epoch with cache"].append([*ours(folder, options.size, 2, 4.0)][1])
        for side, seconds in times.items():
            rates = sorted(1 / one for one in seconds)
            print(f"{side}: {statistics.median(rates):.0f} pictures/s and core ({rates[0]:.0f} to {rates[-1]:.0f})")
        ratios = [theirs / own for theirs, own in zip(times["webdataset"], times["alignlab"], strict=True)]
        print(
            f"alignlab / webdataset, round by round: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )
        before = megabytes()
        for _ in ours(folder, options.size, 3, 0.0):
            pass
        print(f"largest memory: {before:.0f} MB before three more epochs, {megabytes():.0f} MB behind them")


if __name__ == "__main__":
    main()
