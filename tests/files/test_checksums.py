"""What we write has its check sums beside it, and whoever reads it looks: one flipped bit is one line."""

import json
import shutil
import subprocess
from pathlib import Path

from alignlab.files import checksums
from alignlab.files.weights import read_file
from alignlab.inference.backend import ModelSource
from alignlab.inference.native.adapters import read_adapter
from alignlab.inference.native.families import describe
from alignlab.inference.source import open_source
from alignlab.methods.language_models.export import export_model
from alignlab.models.language.loading import load_language_model
from alignlab.models.language.lora import add_lora
from alignlab.models.language.paths import load_tokenizer, note_origin, resolve_model
from alignlab.tools import convert
from served_model import write_language_model

import pytest
import torch


def flip(file: Path, place: int = -100) -> None:
    """One bit of a file."""
    content = bytearray(file.read_bytes())
    content[place] ^= 4
    file.write_bytes(content)


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and an adapter on it, with their sums."""
    folder = tmp_path_factory.mktemp("exports")
    write_language_model(folder / "base")
    checksums.write_sums(folder / "base")
    net = note_origin(load_language_model(str(folder / "base")), str(folder / "base"), None)
    export_model(add_lora(net, rank=2), folder / "adapter")
    checksums.write_sums(folder / "adapter")
    return folder


@pytest.fixture
def here(exports: Path, tmp_path: Path) -> Path:
    shutil.copytree(exports, tmp_path / "x")
    file = tmp_path / "x" / "adapter" / "adapter_config.json"
    file.write_text(file.read_text().replace(str(exports), str(tmp_path / "x")))
    checksums.write_sums(tmp_path / "x" / "adapter")
    return tmp_path / "x"


def test_the_list_is_what_other_programs_read(here: Path) -> None:
    assert subprocess.run(["sha256sum", "-c", "--quiet", checksums.FILE], cwd=here / "base").returncode == 0
    checksums.check_sums(here / "base", "model")
    checksums.check_sums(here / "nowhere", "model")  # what isn't there says so elsewhere


DOORS = {
    "transformers' model": ("base", "model.safetensors", load_language_model),
    "our own decoder": ("base", "model.safetensors", lambda path: open_source(ModelSource(path)).weights()),
    "its config": ("base", "config.json", lambda path: open_source(ModelSource(path))),
    "a tokenizer": ("base", "tokenizer.json", load_tokenizer),
    "PEFT's adapter": ("adapter", "adapter_model.safetensors", load_language_model),
    "our own adapter": (
        "adapter",
        "adapter_model.safetensors",
        lambda path: read_adapter(path, describe(open_source(ModelSource(path)).config)),
    ),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_flipped_bit(door: str, here: Path) -> None:
    folder, name, opens = DOORS[door]
    opens(str(here / folder))
    flip(here / folder / name)
    with pytest.raises(
        ValueError, match=rf"{folder}/{name} is damaged: its bytes aren't those that were written"
    ) as found:
        opens(str(here / folder))
    assert "\n" not in str(found.value)
    (here / folder / checksums.FILE).unlink()  # the way on that the message names


def test_a_file_that_is_gone(here: Path) -> None:
    (here / "base" / "generation_config.json").unlink()
    with pytest.raises(ValueError, match=r"generation_config\.json is missing, which SHA256SUMS names"):
        load_language_model(str(here / "base"))


def test_an_adapter_says_when_its_base_has_changed(here: Path) -> None:
    resolve_model(str(here / "adapter"))
    shutil.copytree(here / "base", here / "copy")
    open_source(ModelSource(str(here / "copy"), adapter=str(here / "adapter")))  # the same base somewhere else
    assert json.loads((here / "adapter" / "base.json").read_text())["base"].endswith("base")
    net = load_language_model(str(here / "base"))
    with torch.no_grad():
        net.model.embed_tokens.weight.add_(1e-3)
    net.save_pretrained(here / "base")
    checksums.write_sums(here / "base")
    for opens in (resolve_model, load_language_model, lambda path: open_source(ModelSource(path))):
        with pytest.raises(ValueError, match=r"adapter=\S+: its base \S+ has changed since"):
            opens(str(here / "adapter"))
    with pytest.raises(ValueError, match="has changed since"):
        open_source(ModelSource(str(here / "base"), adapter=str(here / "adapter")))


def test_converted_weights(tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.ones(1000)}}, tmp_path / "a.ckpt")
    file = tmp_path / "a.safetensors"
    convert.safetensors(tmp_path / "a.ckpt", file)
    assert read_file(file, "init_from")["state_dict"]["w"].sum() == 1000
    flip(file)
    with pytest.raises(ValueError, match=r"^init_from: \S+a\.safetensors is damaged: its bytes aren't"):
        read_file(file, "init_from")
