"""`alignlab doctor`: what this machine and this installation have, to be read and to be pasted into an issue.

Nothing heavy is imported: versions come from metadata, torch's CUDA from its `version.py`, drivers from nvidia-smi.
"""

import importlib.metadata
import locale
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from packaging.requirements import Requirement

from alignlab.configs import sources
from alignlab.distributed import machine

PACKAGES = (
    "alignlab torch torchvision lightning timm transformers tokenizers hydra-core omegaconf numpy pillow"
).split()
NOT_FOR_USERS = ("dev", "bench", "parity")
VARIABLES = (
    "CUDA_VISIBLE_DEVICES OMP_NUM_THREADS PYTHONDONTWRITEBYTECODE HF_HUB_OFFLINE HF_HOME ALIGNLAB_PLUGINS TMPDIR"
).split()
# Least driver of each major version of CUDA (NVIDIA, CUDA Compatibility, "minor version compatibility").
LEAST_DRIVER = {11: 450, 12: 525, 13: 580}
LEAST_FREE = 5e9  # bytes; a few checkpoints of a small model
LEAST_FILES = 4096  # workers hand tensors over in open files


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
        problem: what to do about it; None where all is well.
    """

    topic: str
    value: str
    problem: str | None = None


def findings() -> list[Finding]:
    """Everything, in the order in which it is shown; no path of the user's home is in it."""
    found = [*_versions(), *_devices(), *_extras(), *_places(), *_processes()]
    return [Finding(f.topic, _without_home(f.value), f.problem and _without_home(f.problem)) for f in found]


def shown(found: list[Finding]) -> str:
    """Lines for people."""
    width = max(len(f.topic) for f in found)
    lines = [f"{f.topic:<{width}}  {f.value}" + (f"\n{'':<{width}}  ! {f.problem}" if f.problem else "") for f in found]
    count = sum(f.problem is not None for f in found)
    return "\n".join([*lines, "", f"{count} to look at (!)" if count else "nothing to look at"])


def as_rows(found: list[Finding]) -> list[dict[str, str | None]]:
    """For `--json`."""
    return [asdict(f) for f in found]


def fit(torch_cuda: str | None, torch_hip: str | None, gpus: list[tuple[str, str, str]]) -> Finding:
    """Whether the GPUs and torch fit.

    Args:
        torch_cuda: the CUDA that torch was built for, as `torch_hip`; None for another build.
        gpus: name, memory, driver's version of each NVIDIA GPU.
    """
    built = f"CUDA {torch_cuda}" if torch_cuda else f"ROCm {torch_hip}" if torch_hip else "the CPU"
    if not gpus:
        return Finding("GPU", f"none of NVIDIA's is seen; torch is built for {built}")
    names = ", ".join(f"{name} ({memory})" for name, memory, _ in gpus)
    value = f"{names}; driver {gpus[0][2]}; torch is built for {built}"
    if torch_cuda is None:
        return Finding("GPU", value, "this torch can't use it: install a build for CUDA")
    least = LEAST_DRIVER.get(int(torch_cuda.split(".")[0]), 0)
    number = re.match(r"\d+", gpus[0][2])
    if number and int(number[0]) < least:
        return Finding(
            "GPU", value, f"CUDA {torch_cuda} needs driver {least} or later: update it, or take an older torch"
        )
    return Finding("GPU", value)


def _versions() -> list[Finding]:
    there = {name: _version(name) for name in PACKAGES}
    missing = [name for name, version in there.items() if version is None]
    return [
        Finding(
            "Python", f"{platform.python_version()} on {platform.system()} {platform.release()} {platform.machine()}"
        ),
        Finding(
            "packages",
            ", ".join(f"{name} {version or 'missing'}" for name, version in there.items()),
            f"pip install {' '.join(missing)}" if missing else None,
        ),
    ]


def _devices() -> list[Finding]:
    memory = machine.memory()
    total, free = (memory.get(name, 0) / 1e9 for name in ("MemTotal", "MemAvailable"))
    said = f", {total:.1f} GB of memory, {free:.1f} GB free" if memory else ""
    spec = sources.spec_of("torch")
    version = Path(spec.origin).with_name("version.py") if spec is not None and spec.origin else None
    text = version.read_text(encoding="utf-8") if version is not None and version.exists() else ""
    built = {name: found for name, found in re.findall(r"^(cuda|hip)\b[^=\n]*= *'([^']+)'", text, re.MULTILINE)}
    return [Finding("CPU", f"{machine.cores()} cores{said}"), fit(built.get("cuda"), built.get("hip"), _gpus())]


def _gpus() -> list[tuple[str, str, str]]:
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [tuple(part.strip() for part in line.split(",")) for line in done.stdout.splitlines()]
    return [row for row in rows if len(row) == 3] if done.returncode == 0 else []


def _extras() -> list[Finding]:
    needs: dict[str, list[str]] = {}
    metadata = importlib.metadata.metadata("alignlab")
    requirements = [Requirement(text) for text in importlib.metadata.requires("alignlab") or ()]
    for extra in metadata.get_all("Provides-Extra") or ():
        own = [r for r in requirements if r.marker is not None and r.marker.evaluate({"extra": extra})]
        needs[extra] = [r.name for r in own if r.name != "alignlab" and not _fits(r)]
    known = {extra: lacking for extra, lacking in needs.items() if extra not in NOT_FOR_USERS}
    complete = [extra for extra, lacking in known.items() if not lacking]
    rows = [Finding("extras there", ", ".join(complete) or "none")]
    return rows + [
        Finding(f"extra {extra}", f"lacks {', '.join(lacking)}: pip install 'alignlab[{extra}]'")
        for extra, lacking in known.items()
        if lacking
    ]


def _fits(requirement: Requirement) -> bool:
    version = _version(requirement.name)
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def _places() -> list[Finding]:
    rows = []
    for topic, place in (("disk here", Path.cwd()), ("temporary files", None), ("shared memory", Path("/dev/shm"))):
        try:
            folder = Path(tempfile.gettempdir()) if place is None else place
            if not folder.exists():
                continue
            free = shutil.disk_usage(folder).free
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            rows.append(Finding(topic, "can't be written to", error.strerror or type(error).__name__))
            continue
        name = f"{folder}, " if place is None else ""
        little = free < (LEAST_FREE if topic == "disk here" else 5e8)
        rows.append(Finding(topic, f"{name}{free / 1e9:.1f} GB free", "that is little" if little else None))
    encoding = locale.getpreferredencoding(False)
    ascii_only = encoding.lower().replace("-", "") != "utf8" and not sys.flags.utf8_mode
    return [*rows, Finding("locale", encoding, "set LANG=C.UTF-8, or PYTHONUTF8=1" if ascii_only else None)]


def _processes() -> list[Finding]:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    set_ = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    slow = "each process compiles all packages anew: unset PYTHONDONTWRITEBYTECODE"
    entries = [entry.name for entry in importlib.metadata.entry_points(group="alignlab.plugins")]
    return [
        Finding("data workers", f"by default one a core, {machine.cores()}; open files {files[0]} of {files[1]}",
                f"ulimit -n {LEAST_FILES}" if 0 <= files[1] < LEAST_FILES else None),
        Finding("environment", ", ".join(f"{name}={value}" for name, value in set_.items()) or "nothing of note",
                slow if "PYTHONDONTWRITEBYTECODE" in set_ else None),
        Finding("plugins", ", ".join(entries) or "none is installed"),
    ]  # fmt: skip


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _without_home(text: str) -> str:
    return text.replace(str(Path.home()), "~") if str(Path.home()) != "/" else text
