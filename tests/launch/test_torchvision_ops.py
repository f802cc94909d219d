"""Operators are declared where torchvision's compiled half can't declare them, and never where it can: that ends the process."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.distributed  # starts processes
SCHEMA = "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
# What torchvision's extension does when it is loaded, by the same functions of torch's stable interface.
SOURCE = f"""
#include <stdint.h>
#include <stdlib.h>
typedef struct Library *Handle;
int32_t aoti_torch_library_init_def(const char *, const char *, uint32_t, Handle *);
int32_t aoti_torch_library_def(Handle, const char *);
__attribute__((constructor)) static void declare(void) {{
  Handle handle;
  if (aoti_torch_library_init_def("torchvision", __FILE__, __LINE__, &handle)) abort();
  if (aoti_torch_library_def(handle, "{SCHEMA}")) abort();
}}
"""
PACKAGE = """
from pathlib import Path
import torch
for file in Path(__file__).parent.glob("_C*"):
    torch.ops.load_library(str(file))
"""
PROGRAM = """
import alignlab, torchvision
import alignlab.launch.torchvision_ops as ops, torch
print(ops._library is not None, hasattr(torch.ops.torchvision, "nms"), hasattr(torch.ops.torchvision, "qnms"))
"""


def run(folder: Path) -> str:
    path = os.pathsep.join([str(folder), *sys.path])
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=os.environ | {"PYTHONPATH": path}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-1000:]
    return done.stdout.decode().strip()


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize("name", ["_C.so", "_C_stable.so"])
def test_an_extension_that_loads_is_left_to_declare_its_operators(tmp_path: Path, name: str) -> None:
    package, library = tmp_path / "torchvision", Path(torch.__file__).parent / "lib"
    package.mkdir()
    (package / "__init__.py").write_text(PACKAGE)
    (tmp_path / "extension.c").write_text(SOURCE)
    linked = [f"-L{library}", "-ltorch_cpu", f"-Wl,-rpath,{library}"]
    command = ["cc", "-shared", "-fPIC", "-o", str(package / name), str(tmp_path / "extension.c"), *linked]
    subprocess.run(command, check=True)
    assert run(tmp_path) == "False True False"


def test_without_an_extension_both_are_declared(tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("")
    (tmp_path / "torchvision" / "_C_stable.so").write_text("for another machine")
    assert run(tmp_path) == "True True True"
