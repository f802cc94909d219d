"""Every form that weights come in: read as what they are, or one line that says what it is and what would help; nothing is run."""

import argparse
import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

from alignlab.files.safetensors import safetensors_header
from alignlab.files.weights import load_into, read_file, weights_of

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn


class Tiny(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, width), nn.Linear(width, 2))


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return Tiny().state_dict()


def under(prefix: str, state: dict) -> dict:
    return {prefix + name: value for name, value in state.items()}


def legacy(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


W = weights()
NET = {name.removeprefix("net."): value for name, value in W.items()}
OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
GOOD = {
    "ours": lambda path: torch.save({"state_dict": W, "epoch": 1}, path),
    "plain": lambda path: torch.save(W, path),
    "before torch 1.6": lambda path: legacy({"state_dict": W}, path),
    "a Namespace beside": lambda path: torch.save({"model": W, "args": argparse.Namespace(lr=1.0)}, path),
    "the same before torch 1.6": lambda path: legacy({"model": W, "args": argparse.Namespace(lr=1.0)}, path),
    "numpy scalars": lambda path: torch.save({"model": W, "best": np.float64(0.5), "n": np.int64(3)}, path),
    "a path": lambda path: torch.save({"model": W, "file": Path("/tmp/x")}, path),
    "nested": lambda path: torch.save({"net": {"state_dict": W}, "optimizer": OPTIMIZER, "epoch": 3}, path),
    "the net alone": lambda path: torch.save({"net": NET}, path),
    "DDP": lambda path: torch.save({"state_dict": under("module.", W)}, path),
    "DDP around the net": lambda path: torch.save(under("module.", NET), path),
    "compiled, in DDP": lambda path: torch.save({"model": under("module._orig_mod.", W)}, path),
    "compiled parts": lambda path: torch.save({k.replace("0.", "0._orig_mod."): v for k, v in W.items()}, path),
    "DeepSpeed": lambda path: torch.save({"module": under("_forward_module.", W)}, path),
    "safetensors": lambda path: save_file(W, path),
    "with an EMA": lambda path: torch.save(
        {"model": W, "model_ema": under("module.", W), "optimizer": OPTIMIZER}, path
    ),
}


@pytest.mark.parametrize("kind", GOOD)
def test_read_as_what_it_is(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    GOOD[kind](file)
    system = Tiny()
    load_into(system, weights_of(read_file(file, "ckpt_path"), file, "ckpt_path"), file, "ckpt_path")
    for name, value in system.state_dict().items():
        torch.testing.assert_close(value, W[name], rtol=0, atol=0)


class Evil:
    def __reduce__(self) -> tuple:
        return os.system, ("touch EVIL",)


class EvilBuiltin:
    def __reduce__(self) -> tuple:
        return exec, ("open('EVIL', 'w').close()",)


def old_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO(b""))


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("model.pth"), io.BytesIO(b""))


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.pth", b"x")


def damaged(path: Path) -> None:
    torch.save(W, path)
    content = bytearray(path.read_bytes())
    content[content.index(W["net.0.weight"].numpy().tobytes())] ^= 0xFF
    path.write_bytes(content)


def scripted(path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(path)


BAD = {
    "script": (scripted, "TorchScript archive.*load\\(FILE\\).state_dict"),
    "old tar": (old_tar, "a tar file of torch before 0.1.10"),
    "tar": (tar, "a tar archive \\(model.pth\\); unpack"),
    "zip": (zipped, "zip archive that torch didn't write \\(model.pth\\)"),
    "damaged": (damaged, "is damaged"),
    "cut off": (lambda path: path.write_bytes(_bytes(W)[:-200]), "is cut off"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "a pickle that torch.save didn't write"),
    "web page": (lambda path: path.write_bytes(b"<!doctype html><title>404"), "a web page"),
    "LFS": (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "HDF5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), "HDF5"),
    "GGUF": (lambda path: path.write_bytes(b"GGUF\x03"), "GGUF"),
    "noise": (lambda path: path.write_bytes(b"\x01\x02\x03" * 99), "neither a torch file nor safetensors"),
    "broken safetensors": (lambda path: path.write_bytes(b"\xff\0\0\0\0\0\0\0{}"), "damaged safetensors"),
    "evil": (lambda path: torch.save({"model": W, "x": Evil()}, path), "running code"),
    "nothing in it": (lambda path: torch.save({"epoch": 3}, path), "no state_dict.*there is: epoch"),
    "several": (lambda path: torch.save({"a": W, "b": W}, path), "several names \\(a, b\\)"),
    "another width": (lambda path: torch.save(Tiny(5).state_dict(), path), r"another shape: net.0.weight \(5, 3\) instead of \(4, 3\)"),
    "one missing": (lambda path: torch.save({k: v for k, v in W.items() if k != "net.1.bias"}, path), "missing: net.1.bias"),
    "one more": (lambda path: torch.save(W | {"net.2.bias": torch.ones(1)}, path), "unexpected: net.2.bias"),
    "ALBEF's": (lambda path: torch.save({"model": under("visual_encoder.blocks.", W)}, path), "convert from-albef"),
}  # fmt: skip


def _bytes(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", BAD)
def test_one_line_that_says_what_it_is(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "weights.pth"
    make, message = BAD[kind]
    make(file)
    with pytest.raises(ValueError, match=message) as found:
        load_into(Tiny(), weights_of(read_file(file, "ckpt_path"), file, "ckpt_path"), file, "ckpt_path")
    assert "\n" not in str(found.value) and str(found.value).startswith(f"ckpt_path: {file}")
    assert not Path("EVIL").exists()


def test_code_that_is_no_module_of_the_system_is_not_run_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown callable becomes a placeholder: the weights are read, nothing is called."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "weights.pth"
    torch.save({"model": W, "x": EvilBuiltin()}, file)
    with pytest.raises(ValueError, match="running code"):
        read_file(file, "ckpt_path")
    assert not Path("EVIL").exists()


def test_a_header_of_safetensors_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file(W, file)
    begin, entries = safetensors_header(file)
    assert entries.keys() == W.keys() and begin < file.stat().st_size
    whole = file.read_bytes()
    for broken in (whole[:-5], whole[:4], b"\xff" * 8 + whole[8:], whole[:8] + b"\x00" + whole[9:]):
        file.write_bytes(broken)
        with pytest.raises(ValueError, match="is a damaged safetensors file"):
            safetensors_header(file)
