"""Starts the two processes of a test of ranks, and waits for both."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def start(script: Path, folder: Path, *lists: Sequence[str], seconds: float = 900) -> None:
    """Two processes of a script, as torchrun starts them, with a folder and lists as arguments."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0", "OMP_NUM_THREADS": "1"}
    running = []
    for rank in "01":
        environment = os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank}
        with (folder / f"rank{rank}.log").open("w") as log:
            command = [sys.executable, str(script), str(folder), *(",".join(names) for names in lists)]
            running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))
    try:
        codes = [process.wait(timeout=seconds) for process in running]
    finally:
        for process in running:
            process.kill()
    assert codes == [0, 0], (folder / "rank0.log").read_text()[-3000:] + (folder / "rank1.log").read_text()[-3000:]
