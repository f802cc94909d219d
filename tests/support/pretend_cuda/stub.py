"""Lets autograd run backward over tensors that say `cuda` on a machine without a driver. Import it before torch.

Autograd looks for streams of the device. `STUB` gives it a device guard and hooks that have none: compiled once (two seconds, needs g++), kept in
the user's cache. A CPU build of torch has nothing of the kind; in a CUDA build they take the place of those that ask the driver.
"""

import ctypes
import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

STUB = r"""
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace {
struct Guard : c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA> {
  c10::Device getDevice() const override { return {c10::DeviceType::CUDA, 0}; }
  c10::Device exchangeDevice(c10::Device) const override { return getDevice(); }
  c10::Stream getStream(c10::Device) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, getDevice()); }
  c10::Stream exchangeStream(c10::Stream stream) const noexcept override { return stream; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
};

struct Hooks : at::CUDAHooksInterface {
  explicit Hooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }  // what autograd asks before it looks for a stream
  bool hasPrimaryContext(c10::DeviceIndex) const override { return false; }
};
}  // namespace

namespace at { namespace {
C10_REGISTER_TYPED_CLASS_WITH_PRIORITY(CUDAHooksRegistry, "CUDAHooks", c10::REGISTRY_PREFERRED, Hooks)
} }
extern "C" void install_guard() {
  c10::impl::device_guard_impl_registry[static_cast<size_t>(c10::DeviceType::CUDA)].store(new Guard);
}
"""


def compiled() -> Path:
    """The compiled stub for this torch.

    Raises:
        OSError: no g++, or it can't compile this.
    """
    torch = Path(importlib.util.find_spec("torch").origin).parent
    key = hashlib.sha256(STUB.encode() + (torch / "version.py").read_bytes()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alignlab"
    file = folder / f"pretend-cuda-{key}.so"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        mine = file.with_suffix(f".{os.getpid()}")
        paths = [f"-I{torch / 'include'}", f"-L{torch / 'lib'}", "-o", mine]
        command = ["g++", "-std=c++20", "-w", "-shared", "-fPIC", *paths, "-x", "c++", "-", "-lc10", "-ltorch_cpu"]
        found = subprocess.run(command, input=STUB, text=True, capture_output=True)
        if found.returncode:
            raise OSError(f"g++ can't compile the device's stub: {found.stderr.strip().splitlines()[-1]}")
        mine.rename(file)
    return file


def install() -> None:
    """Gives autograd its device; to be called before torch is imported."""
    if "torch" in sys.modules:
        raise ImportError("the pretend device comes before torch, which takes its CUDA hooks only once")
    libraries = Path(importlib.util.find_spec("torch").origin).parent / "lib"
    for name in ("libc10.so", "libtorch_cpu.so"):
        ctypes.CDLL(str(libraries / name), mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(compiled()))
    import torch

    library.install_guard()
    torch.autograd.set_multithreading_enabled(False)  # no thread for a device that isn't there
