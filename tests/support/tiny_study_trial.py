"""A trial with the manners of train.py and none of its weight: its loss is a bowl in optim.lr.

It diverges above 3e-3; weight decays below 2e-3 crash it, those below 4e-3 have it killed.
"""

import json
import math
import os
import signal
import sys
import time
from pathlib import Path

words = [word for word in sys.argv[1:] if not word.startswith("hydra.")]
values = dict(word.lstrip("+").split("=", 1) for word in sys.argv[1:])
directory = Path(values["hydra.run.dir"].strip("'"))
rate, decay = float(values["optim.lr"]), float(values["optim.weight_decay"])
(directory / ".hydra").mkdir(parents=True, exist_ok=True)
(directory / ".hydra" / "overrides.yaml").write_text("".join(f"- {json.dumps(word)}\n" for word in words))
status = "ok"


def stop(*_: object) -> None:
    global status
    status = "interrupted"


signal.signal(signal.SIGTERM, stop)
with (Path.cwd() / "began.txt").open("a") as file:  # every trial that has begun, once each
    file.write(f"{directory.name} {'resume' in values}\n")
if decay < 2e-3:
    raise RuntimeError("crashed")
if decay < 4e-3:
    os.kill(os.getpid(), signal.SIGKILL)
end = time.monotonic() + float(os.environ.get("TRIAL_SECONDS", "0"))
while time.monotonic() < end and status == "ok":
    time.sleep(0.02)
loss = 1 + math.log10(rate / 1e-3) ** 2
status = "diverged" if status == "ok" and rate > 3e-3 else status
curve = "".join(f"{step},{loss + 1 / step}\n" for step in range(1, 11))
(directory / "metrics.csv").write_text("step,val/loss\n" + curve)
told = {"status": status, "reason": "train/loss is nan" if status == "diverged" else None, "objective": None}
told |= {"steps": 10, "seconds": 0.1, "metrics": {"val/loss": loss + 0.1}}
(directory / "result.json").write_text(json.dumps(told))
sys.exit(1 if status == "diverged" else 143 if status == "interrupted" else 0)
