"""Outputs of a ladder whose chance of a token grows smoothly with size (arXiv:2304.15004): exact match of long answers
jumps, the number of wrong tokens falls steadily.
"""

import json
import math
from pathlib import Path

import numpy as np

RATES = (0.4, 0.55, 0.7, 0.85, 0.98)  # of a token, by size


def ladder(folder: Path, items: int = 200, length: int = 12, seed: int = 0, rates: tuple[float, ...] = RATES) -> Path:
    """Run directories with items.jsonl and result.json."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, 10, (items, length))
    hard = random.normal(0, 0.3, items)  # the same items are hard for all
    for place, rate in enumerate(rates):
        run = folder / f"size_{place}"
        run.mkdir(parents=True)
        told = {"status": "ok", "parameters": int(1e5 * 4**place), "steps": 100}
        (run / "result.json").write_text(json.dumps(told))
        rows = []
        for number, target in enumerate(targets):
            chance = 1 / (1 + math.exp(-(math.log(rate / (1 - rate)) + hard[number])))
            right = random.random(length) < chance
            said = np.where(right, target, (target + random.integers(1, 10, length)) % 10)
            answer, given = ("".join(map(str, each)) for each in (target, said))
            logprobs = [math.log(chance)] * length
            row = {"id": str(number), "task": "digits", "target": answer, "prediction": given}
            rows.append(row | {"correct": answer == given, "target_logprobs": logprobs})
        (run / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
