"""Which learning rate is best at which width, with and without `model.net.base_width`.

    python benchmarks/lm_widths.py run widths.jsonl --widths 32 64 128 --rates 2e-3 4e-3 8e-3 1.6e-2 --seeds 0
    python benchmarks/lm_widths.py show widths.jsonl docs/images/lm_widths.png

`run` trains the default decoder (Llama's choices, 2 layers, 4 heads) on the built-in reviews in a plain loop, `model=lm`'s loss and optimizer, and
appends a row for each net; rows that are there already are left alone. `show` prints a table and draws it.
"""

import argparse
import json
import math
import time
from functools import partial
from itertools import islice, product
from pathlib import Path

from alignlab.data.language.modules import LanguageDataModule
from alignlab.data.language.pretraining.plain_text import PlainText
from alignlab.methods.lm import LmMethod
from alignlab.models.language.decoder.building import decoder
from alignlab.optim.adamw import adamw

import torch
from lightning.fabric.utilities import move_data_to_device
from measuring import check_device, device_option

ROWS, TOKENS, VOCABULARY, HELD_OUT = 8, 64, 300, 40  # of a batch; of a row; ids; batches
NAMES = {False: "standard", True: "base_width"}


def trained(
    data: LanguageDataModule, width: int, base: int | None, rate: float, seed: int, steps: int, device: str
) -> float:
    """Nats a held-out token after so many steps."""
    torch.manual_seed(seed)
    net = partial(decoder, width=width, depth=2, heads=4, context_length=TOKENS, base_width=base)
    method = LmMethod(net, vocabulary=data.vocabulary, z_loss=1e-4).to(device)
    how = {"betas": (0.9, 0.95), "weight_decay": 0.1, "warmup_steps": steps // 5, "min_lr_share": 0.1}
    built = adamw(method, lr=rate, total_steps=steps, **how)
    optimizer, schedule = built["optimizer"], built["lr_scheduler"]["scheduler"]
    for batch in islice(data.train_dataloader(), steps):
        method(move_data_to_device(batch, device)).loss.backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    with torch.no_grad():
        for number, batch in enumerate(islice(data.val_dataloader(), HELD_OUT)):
            method.validate(move_data_to_device(batch, device), number)
    return float(method.summarise()["loss"])


def run(file: Path, widths: list[int], rates: list[float], seeds: list[int], steps: int, device: str) -> None:
    """Trains what isn't there yet."""
    there = {key_of(row) for row in rows_of(file)} if file.exists() else set()
    for seed in seeds:
        data = LanguageDataModule(PlainText, batch_size=ROWS, max_length=TOKENS, vocab_size=VOCABULARY, seed=seed)
        data.setup()
        for width, rate, based in product(widths, rates, (False, True)):
            row = {"width": width, "rate": rate, "based": based, "seed": seed}
            if key_of(row) in there or (based and width == widths[0]):  # at the base both are the same
                continue
            start = time.process_time()
            loss = trained(data, width, widths[0] if based else None, rate, seed, steps, device)
            row |= {
                "loss": loss if math.isfinite(loss) else None,
                "steps": steps,
                "seconds": time.process_time() - start,
            }
            print(row, flush=True)
            with file.open("a") as out:
                out.write(json.dumps(row) + "\n")


def rows_of(file: Path) -> list[dict]:
    """What `run` wrote."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def key_of(row: dict) -> tuple:
    """What tells one net from another."""
    return tuple(row[name] for name in ("width", "rate", "based", "seed"))


def show(file: Path, picture: Path) -> None:
    """Losses by width and rate, means over seeds; the best rate of each width in bold."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows, held = rows_of(file), {}
    for row in rows:
        held.setdefault((row["width"], row["based"], row["rate"]), []).append(row["loss"] or math.inf)
    mean = {key: sum(losses) / len(losses) for key, losses in held.items()}
    widths, rates = (sorted({row[name] for row in rows}) for name in ("width", "rate"))
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    print(f"| | width | {' | '.join(f'{rate:g}' for rate in rates)} |\n|{'---|' * (len(rates) + 2)}")
    for axis, based in zip(axes, (False, True), strict=True):
        for number, width in enumerate(widths):
            of = {rate: mean.get((width, based and width > widths[0], rate)) for rate in rates}
            least = min(loss for loss in of.values() if loss is not None)
            cells = ["" if x is None else f"**{x:.3f}**" if x == least else f"{x:.3f}" for x in of.values()]
            print(f"| {NAMES[based]} | {width} | {' | '.join(cells)} |")
            points = [(rate, loss) for rate, loss in of.items() if loss is not None]
            color = plt.get_cmap("viridis")(number / len(widths))
            axis.plot(*zip(*points, strict=True), "o-", color=color, label=f"{width}", markersize=3)
            axis.plot(*min(points, key=lambda point: point[1]), "o", color=color, markersize=8, fillstyle="none")
        axis.set(xscale="log", xlabel="learning rate", title=NAMES[based] if based else "without")
        axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axis.minorticks_off()
        axis.legend(title="width", fontsize=8)
    axes[0].set_ylabel("held out, nats a token")
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "show"], nargs="?", default="run")
    parser.add_argument("file", type=Path, nargs="?", default=Path("widths.jsonl"))
    parser.add_argument("picture", type=Path, nargs="?", default=Path("widths.png"))
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128], help="the first is the base")
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=250)
    device_option(parser)
    options = parser.parse_args()
    check_device(options.device)
    if options.what == "run":
        run(options.file, options.widths, options.rates, options.seeds, options.steps, options.device)
    else:
        show(options.file, options.picture)
