"""Lists flat on disk: kept for the next run, read anew when they change or are damaged, the same for every process."""

import json
import pickle
import shutil
from pathlib import Path

from alignlab.data.image_text import picture_list
from alignlab.data.image_text.annotations import read_annotations
from alignlab.files.text import json_items

import pytest


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where large lists are kept; every list is large here."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(picture_list, "KEPT_FROM", 0)
    return tmp_path / "cache" / "alignlab" / "lists"


def listing(folder: Path, number: int = 40) -> Path:
    rows = [
        {"image": f"{n % 30}.png", "caption": f"caption {n}", "split": ("train", "val")[n % 2]} for n in range(number)
    ]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "list.jsonl"


def told(splits) -> dict[str, list]:
    return {name: list(pictures) for name, pictures in splits.items()}


def test_a_large_list_is_read_once(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = listing(tmp_path)
    first = told(read_annotations(file))
    assert [picture.captions for picture in first["train"][:2]] == [
        ("caption 0", "caption 30"),
        ("caption 2", "caption 32"),
    ]
    assert first["val"][0].where == f"annotations={file}, line 2" and len(first["train"]) == len(first["val"]) == 15
    with monkeypatch.context() as patched:
        patched.setattr("alignlab.data.image_text.annotations.json_lines", None)
        again = read_annotations(file)
        assert told(again) == first and told(pickle.loads(pickle.dumps(again))) == first
    (folder,) = (path for path in kept.iterdir() if path.is_dir())
    listing(tmp_path, 41)
    assert (
        len(told(read_annotations(file))["train"]) == 15
        and read_annotations(file)["train"][5].captions[-1] == "caption 40"
    )
    assert [path for path in kept.iterdir() if path.is_dir()] != [folder], "what it was before is gone"


def test_a_damaged_one_is_read_anew(kept: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = listing(tmp_path)
    first = told(read_annotations(file))
    (folder,) = (path for path in kept.iterdir() if path.is_dir())
    for name in sorted(path.name for path in folder.iterdir()):
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
        caplog.clear()
        assert told(read_annotations(file)) == first and "is damaged: the list is read anew" in caplog.text, name
    shutil.rmtree(folder)
    folder.parent.chmod(0o500)
    assert told(read_annotations(file)) == first, "a list that can't be kept is read all the same"
    folder.parent.chmod(0o700)


def test_lists_in_json_are_read_bit_by_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cut between two letters, and what the library says of the whole."""
    texts = [
        '[{"a": "x, ]"}, [1, 2], "]", -12.5e1, null]',
        " [ ] ",
        "[1 2]",
        "[1,]",
        "[,1]",
        "[1] x",
        '["a',
        "[",
        '[{"a": 1, "a": 2}]',
    ]
    for bit in (1, 2, 3, 7, 100):
        monkeypatch.setattr("alignlab.files.text._BIT", bit)
        for number, text in enumerate(texts):
            (tmp_path / "a.json").write_text(text)
            if number < 2:
                assert [value for _, _, value in json_items(tmp_path / "a.json")] == json.loads(text), (bit, text)
                continue
            with pytest.raises(ValueError, match="no JSON"):
                list(json_items(tmp_path / "a.json"))


def test_a_list_that_cannot_be_read_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "a.jsonl").write_text('{"image": "a.png", "caption": "a"}\n{"image": "b.png"}')
    with pytest.raises(ValueError, match="line 2"):
        read_annotations(tmp_path / "a.jsonl")
    assert not list((tmp_path / "temporary").iterdir())
