"""What a failing disk looks like to each writer: `FAULT` and `FAULT_PATH` in the environment, libraries preloaded; prints a line each."""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

from alignlab.files.writing import replaced, write_text
from alignlab.inference.backends.scripted import byte_tokenizer
from alignlab.launch import disk

import torch
from safetensors.torch import save_file

folder = Path(sys.argv[1])


def small(file: Path) -> None:
    write_text(file, "x" * 10_000)


def durable(file: Path) -> None:
    with replaced(file, durable=True) as temporary:
        torch.save({"x": torch.zeros(10_000)}, temporary)


WRITERS: dict[str, Callable[[Path], object]] = {
    "text": small,
    "torch": durable,
    "safetensors": lambda file: save_file({"x": torch.zeros(10_000)}, file),
    "tokenizers": lambda file: byte_tokenizer().save_pretrained(file),
}
if "FAULT_PATH" in os.environ:
    for code in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
        os.environ["FAULT"] = str(code)
        for name, write in WRITERS.items():
            try:
                write(folder / f"{name}-{code}")
                print(name, code, "written")
            except Exception as error:
                told = disk.explained(error, folder)
                print(name, errno.errorcode[code], f"{type(told).__name__}: {told}")
else:
    from alignlab.callbacks.keeping.checkpoint_folder import CheckpointFolder, trained

    found = CheckpointFolder(folder / "checkpoints", monitor="val/loss")
    for step in (1, 2, 3):
        torch.save({"x": torch.tensor(step)}, found.begin(step))
        found.finish(step, {"val/loss": float(step != 2)})
    names = {n: int(torch.load(folder / "checkpoints" / f"{n}.ckpt")["x"]) for n in ("last", "best")}
    print(names, trained(folder).name, (folder / "checkpoints" / "best.ckpt").is_symlink())
