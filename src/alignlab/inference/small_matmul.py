"""Matrix products of few rows at the speed of memory on a CPU: compiles `small_matmul.c` once, and falls back on torch without a compiler.

Legend: B rows of x, N outputs, K inputs.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import shutil
import subprocess
from pathlib import Path

import torch
from torch import Tensor

MOST_ROWS = 16  # more rows are bound by arithmetic, where torch's own products are as good
FLAGS = ("-O3", "-march=native", "-ffast-math", "-fopenmp", "-fPIC")
log = logging.getLogger(__name__)


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
        log.warning("small_matmul.c does not compile here (%s): torch's slower kernels instead", reason.strip()[-200:])
        return None


def _compiled(compiler: str) -> Path:
    """The shared library, in the user's cache under a name that holds source, flags and machine."""
    source = Path(__file__).with_suffix(".c")
    openmp = _torch_openmp()
    machine = next((line for line in _cpu_lines() if line.startswith("model name")), "")
    key = hashlib.sha256(repr((source.read_bytes(), FLAGS, compiler, machine, openmp)).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alignlab"
    file = folder / f"small_matmul-{key}.so"
    if file.exists():
        return file
    folder.mkdir(parents=True, exist_ok=True)
    object_file, temporary = (folder / f".{key}.{os.getpid()}{end}" for end in (".o", ".so"))
    run = functools.partial(subprocess.run, check=True, capture_output=True, text=True, timeout=120)
    try:
        run([compiler, *FLAGS, "-c", str(source), "-o", str(object_file)])
        run([compiler, "-shared", *([] if openmp else ["-fopenmp"]), str(object_file), "-o", str(temporary)])
        os.replace(temporary, file)
    finally:
        object_file.unlink(missing_ok=True)
        temporary.unlink(missing_ok=True)
    return file


def _cpu_lines() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def _torch_openmp() -> str | None:
    """Torch's own OpenMP runtime, made visible to the kernels: two runtimes would each keep threads spinning on the same cores."""
    try:
        loaded = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libgomp" in line}
    except OSError:
        return None
    own = sorted(path for path in loaded if "torch" in path) or sorted(loaded)
    if not own:
        return None
    ctypes.CDLL(own[0], mode=ctypes.RTLD_GLOBAL)
    return own[0]


def _declared(found: ctypes.CDLL) -> ctypes.CDLL:
    pointer, number, count = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
    for name in ("matmul_f32", "matmul_bf16", "matmul_i8"):
        getattr(found, name).argtypes = [pointer] * 5 + [number] * 3 + [count]
        getattr(found, name).restype = None
    found.matmul_i8i8.argtypes = [pointer] * 7 + [number] * 3 + [count]
    found.matmul_i8i8.restype = None
    found.quantize_rows.argtypes = [pointer] * 3 + [number] * 2
    found.quantize_rows.restype = None
    return found


NAMES = {torch.float32: "matmul_f32", torch.bfloat16: "matmul_bf16", torch.int8: "matmul_i8"}


def fits(weight: Tensor) -> bool:
    """Whether there is a kernel for this matrix here."""
    return weight.device.type == "cpu" and weight.dtype in NAMES and library() is not None


class SmallMatmul:
    """y = x W^T * scale + bias for x of few rows; sums in fp32, whatever W is stored as.

    Args:
        weight: (N, K), contiguous, fp32, bf16 or int8, on the CPU.
        scale: (N,) fp32 for int8.
        bias: (N,) or None.
    """

    def __init__(self, weight: Tensor, scale: Tensor | None = None, bias: Tensor | None = None) -> None:
        assert weight.is_contiguous() and weight.device.type == "cpu"
        self._function = getattr(library(), NAMES[weight.dtype])
        self._bias = bias  # a live model's may change; fp32 ones are used by address
        self._kept = (weight, scale)  # their memory is used by address
        self._weight, self._scale = weight.data_ptr(), _address(scale)
        self.outputs, self.inputs = weight.shape

    def __call__(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., N) in x's dtype."""
        rows = x.reshape(-1, self.inputs).float().contiguous()
        y = torch.empty(len(rows), self.outputs)
        bias = None if self._bias is None else self._bias.float().contiguous()
        self._function(
            rows.data_ptr(), self._weight, self._scale, _address(bias), y.data_ptr(), len(rows), self.outputs,
            self.inputs, torch.get_num_threads(),
        )  # fmt: skip
        return y.view(*x.shape[:-1], self.outputs).to(x.dtype)


class SmallMatmulInt8:
    """The same with both sides in int8: x is rounded row by row (absmax), sums are exact integers.

    Args:
        weight: (N, K) int8. scale: (N,) fp32. bias: (N,) or None.
    """

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> None:
        self._bias = None if bias is None else bias.float().contiguous()
        self._sums = weight.sum(1, dtype=torch.int32)
        self._kept = (weight, scale)
        self.outputs, self.inputs = weight.shape

    def __call__(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., N) in x's dtype."""
        rows, kernels = x.reshape(-1, self.inputs).float().contiguous(), library()
        rounded, scales = torch.empty(rows.shape, dtype=torch.uint8), torch.empty(len(rows))
        kernels.quantize_rows(rows.data_ptr(), rounded.data_ptr(), scales.data_ptr(), *rows.shape)
        y = torch.empty(len(rows), self.outputs)
        weight, scale = self._kept
        kernels.matmul_i8i8(
            rounded.data_ptr(), scales.data_ptr(), weight.data_ptr(), scale.data_ptr(), self._sums.data_ptr(),
            _address(self._bias), y.data_ptr(), len(rows), self.outputs, self.inputs, torch.get_num_threads(),
        )  # fmt: skip
        return y.view(*x.shape[:-1], self.outputs).to(x.dtype)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
