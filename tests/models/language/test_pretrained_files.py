"""Language models from folders whose tensors and config don't belong together: one line; nothing is drawn at random or left out."""

import json
from pathlib import Path

from alignlab.inference.native.weights import WeightFiles
from alignlab.models.language.loading import load_language_model
from tiny_language import NET, WORDS

import pytest
import torch
from safetensors.torch import load_file, save_file


def saved(folder: Path) -> Path:
    torch.manual_seed(0)
    NET(vocabulary=WORDS).save_pretrained(folder)
    return folder


def rewrite(folder: Path, change) -> None:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


NORM = "model.layers.1.input_layernorm.weight"
CASES = {
    "a tensor too few": (lambda f: rewrite(f, lambda w: {k: v for k, v in w.items() if k != NORM}), f"missing: {NORM}"),
    "a tensor too many": (lambda f: rewrite(f, lambda w: w | {"model.layers.5.x": torch.ones(1)}), "without a place in the model: model.layers.5.x"),
    "a layer too many": (lambda f: configured(f, num_hidden_layers=1), r"without a place in the model: model.layers.1.* and 6 more"),
    "a layer too few": (lambda f: configured(f, num_hidden_layers=3), r"missing: model.layers.2.* and 6 more"),
    "another width": (lambda f: configured(f, intermediate_size=80), "mlp"),
    "cut off": (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-9]), "could be read"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "could be read"),
    "no config": (lambda f: (f / "config.json").write_text("{"), "could be read"),
}  # fmt: skip


def configured(folder: Path, **settings) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.mark.parametrize("case", CASES)
def test_one_line(case: str, tmp_path: Path) -> None:
    change, message = CASES[case]
    change(saved(tmp_path / "m"))
    with pytest.raises(ValueError, match=message) as found:
        load_language_model(str(tmp_path / "m"))
    assert "\n" not in str(found.value) and len(str(found.value)) < 600


def test_our_own_reader_names_what_is_missing(tmp_path: Path) -> None:
    files = WeightFiles(saved(tmp_path / "m"))
    with pytest.raises(
        ValueError, match=r"there is no tensor model.layers.9.x; the files don't belong to this config.json"
    ):
        files.read("model.layers.9.x")
    file = tmp_path / "m" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ValueError, match="was not copied completely"):
        WeightFiles(tmp_path / "m")
