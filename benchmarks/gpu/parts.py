"""The parts of `make gpu` in order of worth, with their limits in seconds on one H100 or H200 and 16 cores.

At their limits the first six take 450 seconds; `trained` and `tokens` end sooner, and what the others don't get to they mark "no time" themselves.
"""

import sys
from pathlib import Path

from schedule import Part

HERE = Path(__file__).resolve().parent


def _part(name: str, title: str, limit: float, least: float = 15.0) -> Part:
    command = (
        sys.executable,
        str(HERE / f"{name}.py"),
        "--device",
        "{device}",
        "--folder",
        "{folder}",
        "--seconds",
        "{seconds}",
    )
    return Part(name, title, command, limit, least)


PARTS = (
    _part("trained", "every model as typed, losses of the CPU, resume", 110),
    _part("tokens", "every backend gives the yardstick's tokens", 30),
    _part("vision", "CLIP and ALBEF ViT-B/16, bf16", 85, least=30),
    _part("decode", "decoding Llamas of 135M, 1B, 8B", 75, least=30),
    _part("updates", "PPO and GRPO updates", 75, least=40),
    _part("main_job", "the main job", 75, least=40),
    _part("waits", "waits in training steps, against the list", 40),
    _part("sharded", "fsdp and deepspeed on one GPU", 40),
    _part("marked", "pytest -m gpu", 60),
)
