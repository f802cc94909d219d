"""A program with the manners of train.py whose speed and stability are known.

Throughput is saturated at a batch of 64 and memory is out at 512; rates above 0.004 diverge at step 50, those above 0.0015 rise from step 60.
"""

import json
import sys
from pathlib import Path

values = dict(word.lstrip("+").split("=", 1) for word in sys.argv[1:] if "=" in word)
size, rate = int(values.get("data.batch_size", 8)), float(values.get("optim.lr", 1e-3))
if "--cfg" in sys.argv:
    print(json.dumps({"optim": {"lr": rate}, "trainer": {"gradient_clip_val": 0.001, "max_steps": 1000}}))
    sys.exit(0)
if "unknown" in values:
    print("error: unknown: unknown key", file=sys.stderr)
    sys.exit(2)
if size >= 512:
    raise MemoryError(f"can't have {size}")
directory = Path(values["hydra.run.dir"].strip("'"))
steps, wait = int(values["trainer.max_steps"]), 0.5 if "slow_data" in values else 0.01
lost = rate > 4e-3
rows = []
for step in range(50 if lost else steps):
    loss = 2 - step / steps + (max(0, step - 60) / 10 if rate > 1.5e-3 else 0)
    rows.append(f"{step},{loss},{1 + step % 10},{wait}\n")
(directory / "metrics.csv").write_text("step,train/loss,train/gradient_norm,train/data_wait_share\n" + "".join(rows))
told = {"status": "diverged" if lost else "ok", "reason": None, "steps": len(rows), "peak_memory_bytes": size * 2**20}
(directory / "result.json").write_text(json.dumps(told | {"samples_per_second": 1000 * min(size, 64)}))
sys.exit(1 if lost else 0)
