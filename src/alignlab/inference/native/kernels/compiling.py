"""Compiles `decode_step.c` (with `small_matmul.c` in it) once for this machine and declares its functions."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from alignlab.files.writing import replaced

FLAGS = ("-O3", "-march=native", "-ffast-math", "-fopenmp", "-fPIC")
SOURCES = ("decode_step.c", "small_matmul.c")  # the first includes the others
log = logging.getLogger(__name__)


class Matrix(ctypes.Structure):
    """`Matrix` of small_matmul.c."""

    _fields_ = (
        ("w", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("sums", ctypes.c_void_p),
        ("N", ctypes.c_long),
        ("K", ctypes.c_long),
        ("kind", ctypes.c_int),
    )


class Layer(ctypes.Structure):
    """`Layer` of decode_step.c."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("norm1", "shift1", "norm2", "shift2")) + tuple(
        (name, Matrix) for name in ("q", "k", "v", "out", "gate", "up", "down")
    )


class Step(ctypes.Structure):
    """`Step` of decode_step.c."""

    _fields_ = (
        ("layer", ctypes.POINTER(Layer)),
        *((name, ctypes.c_long) for name in ("layers", "B", "W", "H", "G", "D", "F", "rotary", "column")),
        ("starts", ctypes.c_void_p),
        ("eps", ctypes.c_float),
        *((name, ctypes.c_int) for name in ("rms", "activation", "gated", "half", "threads")),
        *((name, ctypes.c_void_p) for name in ("keys", "values")),
        *((name, ctypes.c_long) for name in ("at_layer", "at_row", "at_head", "at_column")),
        *((name, ctypes.c_void_p) for name in ("cosine", "sine", "x", "qkv", "attended", "middle")),
    )


def address(
    tensor: Tensor | None, dtype: torch.dtype | Sequence[torch.dtype], shape: Sequence[int], what: str
) -> int | None:
    """A tensor's address for C, which believes what it is told; None of None.

    Raises ValueError for another type or shape, for gaps, and for memory of another device.
    """
    if tensor is None:
        return None
    wanted = (dtype,) if isinstance(dtype, torch.dtype) else tuple(dtype)
    if (
        tensor.dtype not in wanted
        or tensor.shape != tuple(shape)
        or tensor.device.type != "cpu"
        or not tensor.is_contiguous()
    ):
        actual = f"{tuple(tensor.shape)} in {tensor.dtype} on {tensor.device}, strides {tensor.stride()}"
        kinds = " or ".join(map(str, wanted))
        raise ValueError(f"C kernel: {what} must be {tuple(shape)} in {kinds} on the CPU without gaps, and is {actual}")
    return tensor.data_ptr()


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where there is no C compiler (said once)."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        log.warning("no C compiler (gcc or clang): products of few rows run on torch's slower kernels")
        return None
    try:
        return _declared(ctypes.CDLL(str(_compiled(compiler))))
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        log.warning("%s does not compile here (%s): torch's slower kernels instead", SOURCES[0], reason.strip()[-200:])
        return None


def _compiled(compiler: str) -> Path:
    """The shared library, in the user's cache under a name that holds source, flags and machine."""
    sources = [Path(__file__).with_name(name) for name in SOURCES]
    openmp = _torch_openmp()
    machine = next((line for line in _cpu_lines() if line.startswith("model name")), "")
    contents = [source.read_bytes() for source in sources]
    key = hashlib.sha256(repr((contents, FLAGS, compiler, machine, openmp)).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alignlab"
    file = folder / f"kernels-{key}.so"
    if file.exists():
        return file
    folder.mkdir(parents=True, exist_ok=True)
    object_file = folder / f".{key}.{os.getpid()}.o"
    run = functools.partial(subprocess.run, check=True, capture_output=True, text=True, timeout=120)
    try:
        run([compiler, *FLAGS, "-c", str(sources[0]), "-o", str(object_file)])
        with replaced(file) as library:
            run([compiler, "-shared", *([] if openmp else ["-fopenmp"]), str(object_file), "-lm", "-o", str(library)])
    finally:
        object_file.unlink(missing_ok=True)
    return file


def _cpu_lines() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def _torch_openmp() -> str | None:
    """Torch's own OpenMP runtime, made visible to the kernels: two runtimes would each keep threads spinning on the
    same cores.
    """
    try:
        loaded = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libgomp" in line}
    except OSError:
        return None
    own = sorted(path for path in loaded if "torch" in path) or sorted(loaded)
    if not own:
        return None
    ctypes.CDLL(own[0], mode=ctypes.RTLD_GLOBAL)
    return own[0]


def _declared(cdll: ctypes.CDLL) -> ctypes.CDLL:
    pointer, number = ctypes.c_void_p, ctypes.c_long
    cdll.matmul.argtypes = [ctypes.POINTER(Matrix), *[pointer] * 4, number, ctypes.c_int]
    cdll.quantize_rows.argtypes = [*[pointer] * 3, number, number]
    cdll.decode_step.argtypes = [ctypes.POINTER(Step)]
    for function in (cdll.matmul, cdll.quantize_rows, cdll.decode_step):
        function.restype = None
    return cdll
