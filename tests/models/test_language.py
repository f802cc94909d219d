"""Language models by path: folders, run directories, adapters, and one line for what is wrong."""

import json
from pathlib import Path

import pytest

from alignlab.models.language import resolve_model


def test_run_directory_means_its_export(tmp_path: Path) -> None:
    export = tmp_path / "export"
    export.mkdir()
    (export / "config.json").write_text("{}")
    assert resolve_model(str(tmp_path)) == (str(export), None)
    assert resolve_model(str(export)) == (str(export), None)


def test_adapter_names_its_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/name"}))
    assert resolve_model(str(tmp_path)) == ("owner/name", str(tmp_path))


def test_hub_id_stays_as_it_is() -> None:
    assert resolve_model("owner/name") == ("owner/name", None)


@pytest.mark.parametrize("path", ["./nowhere", "outputs/sft/none", "/no/such/folder"])
def test_missing_folder_is_one_line(path: str) -> None:
    with pytest.raises(ValueError, match="no such folder") as error:
        resolve_model(path)
    assert "\n" not in str(error.value)


def test_folder_without_a_model_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"neither config.json nor adapter_config.json"):
        resolve_model(str(tmp_path))
