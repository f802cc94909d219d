"""`alignlab fetch` beside huggingface_hub: one large file and 10,000 small ones from a hub on the loopback, alternating in one
run, each in a process of its own; then the faults, and whose tree is right afterwards.

    python benchmarks/fetch.py [--repeats 5] [--small 10000] [--megabytes 400]
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from loopback_hub import LoopbackHub

MB = 2**20
OURS = (
    "import sys; from alignlab.cli import main; "
    "sys.exit(main(['fetch', 'get', sys.argv[1], '--dest', sys.argv[2], '--endpoint', sys.argv[3], '--timeout', '3', "
    "'--lock', sys.argv[2] + '.lock.json']))"
)
THEIRS = (
    "import sys; from huggingface_hub import snapshot_download; "
    "snapshot_download(sys.argv[1], local_dir=sys.argv[2], endpoint=sys.argv[3], etag_timeout=3)"
)
SIDES = {"alignlab fetch": OURS, "huggingface_hub": THEIRS}
FAULTS = {
    "a connection that drops": [("drop", 20 * MB)],
    "a flipped byte": [("flip", 25 * MB)],
    "no answer for 5 s": [("hang", 5)],
    "503, then it works": [("status", 503)],
    "429, Retry-After 1": [("status", 429, {"Retry-After": "1"})],
    "another ETag after a drop": [("drop", 20 * MB), ("etag",)],
    "longer than promised": [("long", 10)],
    "shorter than promised": [("short", 10)],
}


def run(side: str, repo: str, folder: Path, url: str, kill_after: int | None = None) -> tuple[int, float, float]:
    """Exit code, seconds and seconds of computing of one download in a process of its own."""
    environment = os.environ | {
        "HF_HUB_DOWNLOAD_TIMEOUT": "3",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    begin = time.perf_counter()
    with (
        (folder.parent / "log.txt").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-c", SIDES[side], repo, str(folder), url], env=environment, stdout=log, stderr=log
        ) as process,
    ):
        if kill_after is not None:
            while (
                process.poll() is None and sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) < kill_after
            ):
                time.sleep(0.005)
            process.kill()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, time.perf_counter() - begin, usage.ru_utime + usage.ru_stime


def speed(name: str, files: dict[str, bytes], repeats: int, scratch: Path) -> dict:
    hub = LoopbackHub({"org/one": files})
    seconds: dict[str, list] = {side: [] for side in SIDES}
    for _ in range(repeats):
        for side in SIDES:
            shutil.rmtree(scratch / "speed", ignore_errors=True)
            code, wall, computing = run(side, "org/one", scratch / "speed", hub.url)
            assert code == 0, (side, name, (scratch / "log.txt").read_text())
            seconds[side].append((wall, computing))
    hub.close()
    size = sum(map(len, files.values()))
    row = {"what": name}
    for side, each in seconds.items():
        wall, computing = (statistics.median(values) for values in zip(*each, strict=True))
        row[side] = {"seconds": round(wall, 2), "computing": round(computing, 2), "MB/s": round(size / 1e6 / wall, 1)}
    return row


def fault(name: str, faults: list[tuple], scratch: Path) -> dict:
    data = os.urandom(45 * MB)
    row = {"what": name}
    for side in SIDES:
        hub = LoopbackHub({"org/one": {"model.safetensors": data, "config.json": b"{}"}})
        hub.faults["model.safetensors"] = list(faults)
        folder = scratch / "fault"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if name == "kill -9, then again":
            hub.faults["model.safetensors"] = [("slow", 0.05)]
            run(side, "org/one", folder, hub.url, kill_after=25 * MB)
        code, _, _ = run(side, "org/one", folder, hub.url)
        if name == "a damaged file, then again":
            spoilt = bytearray(data)
            spoilt[7] ^= 1
            (folder / "model.safetensors").write_bytes(spoilt)
            code, _, _ = run(side, "org/one", folder, hub.url)
        file = folder / "model.safetensors"
        right = file.exists() and file.read_bytes() == data
        state = "right" if right and code == 0 else "an error" if code else "WRONG BYTES, exit code 0"
        again = max(0, hub.sent - len(data)) / 1e6
        rest = sum(
            f.stat().st_size for f in folder.rglob("*") if f.is_file() and f.name not in (file.name, "config.json")
        )
        row[side] = {"state": state, "MB sent more than once": round(again, 1), "MB left behind": round(rest / 1e6, 1)}
        hub.close()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--megabytes", type=int, default=400)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch)
        small = {f"data/{n:05}.json": json.dumps({"n": n}).encode() for n in range(options.small)}
        rows = [
            speed(
                f"{options.megabytes} MB in one file",
                {"model.safetensors": os.urandom(options.megabytes * 10**6)},
                options.repeats,
                here,
            )
        ]
        print(json.dumps(rows[-1]), flush=True)
        rows.append(speed(f"{options.small} small files", small, options.repeats, here))
        print(json.dumps(rows[-1]), flush=True)
        for name, faults in (FAULTS | {"kill -9, then again": [], "a damaged file, then again": []}).items():
            print(json.dumps(fault(name, faults, here)), flush=True)


if __name__ == "__main__":
    main()
