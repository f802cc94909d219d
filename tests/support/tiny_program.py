"""A program with the manners of train.py and none of its weight: writes result.json where hydra.run.dir= says, after what `do=` asks for."""

import json
import os
import signal
import sys
import time
from pathlib import Path

arguments = dict(word.split("=", 1) for word in sys.argv[1:])
directory = Path(arguments["hydra.run.dir"].strip("'"))
do = arguments.get("do", "end")
status, code = "ok", 0


def stop(number: int, _: object) -> None:
    global status, code
    status, code = "interrupted", 128 + number


signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
(directory / "began").touch()
print("a word", flush=True)
if do == "crash":
    raise RuntimeError("crashed")
if do == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if do == "leave_a_rank":
    if os.fork() == 0:
        (directory / "rank").write_text(str(os.getpid()))
        time.sleep(60)
deadline = time.monotonic() + (60 if do == "wait" and "resume" not in arguments else 0.3)
while time.monotonic() < deadline and status == "ok":
    time.sleep(0.02)
if status == "interrupted":
    (directory / "checkpoints").mkdir(exist_ok=True)
    (directory / "checkpoints" / "last.ckpt").touch()
told = {"status": status, "reason": None, "objective": 1.0, "steps": 1, "seconds": 0.1}
told["seen"] = {name: value for name, value in os.environ.items() if name.startswith(("SLURM", "CUDA", "LOCAL_RANK"))}
(directory / "result.json").write_text(json.dumps(told | {"resumed": "resume" in arguments}))
sys.exit(code)
