"""Lists of (picture, true caption, foil): every form, what is wrong with a row, and a data module that offers them."""

import json

from alignlab.data.image_text.foil_lists import read_foils
from alignlab.data.image_text.modules import PairDataModule
from alignlab.data.image_text.pairs import ImageTextPairs

import numpy as np
import pytest
from PIL import Image

ROWS = [
    {"image": "a.png", "caption": "a red one", "foil": "a blue one", "kind": "colours", "foil_image": "b.png"},
    {"image": "b.png", "caption": "a blue one", "foil": "a red one", "kind": "colours", "foil_image": "a.png"},
    {"image": "c.png", "caption": "a green one", "foil": "two green ones"},
    {"image": "a.png", "caption": "one red thing", "foil": "two red things", "foil_image": "b.png"},
]


@pytest.fixture
def folder(tmp_path):
    for name, colour in (("a", (255, 0, 0)), ("b", (0, 0, 255)), ("c", (0, 255, 0))):
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"{name}.png")
    lines = "\n".join(json.dumps({"image": f"{n}.png", "caption": f"a picture {n}"}) for n in "abc" * 4)
    (tmp_path / "captions.jsonl").write_text(lines)
    return tmp_path


def written(folder, rows, suffix=".jsonl"):
    file = folder / f"foils{suffix}"
    if suffix == ".json":
        file.write_text(json.dumps(rows))
    elif suffix == ".jsonl":
        file.write_text("\n".join(map(json.dumps, rows)))
    else:
        names, separator = ("Image", " Title", "FOIL", "kind", "foil_image"), {".csv": ";", ".tsv": "\t"}[suffix]
        keys = ("image", "caption", "foil", "kind", "foil_image")
        file.write_text(
            "\n".join(separator.join(row) for row in [names, *([r.get(k, "") for k in keys] for r in rows)])
        )
    return str(file)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv"])
def test_every_form_reads_the_same(folder, suffix):
    rows = read_foils(written(folder, ROWS, suffix))
    assert [row.kind for row in rows] == ["colours", "colours", "foils", "foils"]
    assert [(row.image.name, row.caption, row.foil) for row in rows] == [
        (row["image"], row["caption"], row["foil"]) for row in ROWS
    ]
    assert [row.foil_image and row.foil_image.name for row in rows] == ["b.png", "a.png", None, "b.png"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"image": "a.png", "caption": "x", "foils": "y"},
            r"line 1: there is no foil, only .*; did you mean foil by foils",
        ),
        ({"image": "a.png", "caption": "x", "foil": " x"}, "the foil is the caption itself, 'x'"),
        ({"image": "d.png", "caption": "x", "foil": "y"}, r"there is no picture .*d\.png"),
        ({"caption": "x", "foil": "y"}, r"there is no image \(or filepath, "),
        ({"image": "a.png", "caption": ["x"], "foil": "y"}, r"caption is a list of 1 .*; it must be a text"),
        (
            {"image": "a.png", "caption": "x", "foil": "y", "kind": "left/right"},
            "kind is 'left/right'; it names metrics",
        ),
    ],
)
def test_a_wrong_row_is_named(folder, row, message):
    with pytest.raises(ValueError, match=message) as error:
        read_foils(written(folder, [row]))
    assert "foil_annotations=" in str(error.value) and "\n" not in str(error.value)


def test_a_data_module_offers_them(folder, caplog):
    (folder / "broken.png").write_text("no picture")
    rows = [*ROWS, {"image": "broken.png", "caption": "x", "foil": "y"}]
    settings = {
        "annotations": str(folder / "captions.jsonl"),
        "val_share": 0.5,
        "foil_annotations": written(folder, rows),
    }
    with pytest.raises(ValueError, match=r"foils\.jsonl, line 5: .*broken.*on_error=skip leaves it out"):
        ImageTextPairs(image_size=16, **settings)
    data = PairDataModule(
        ImageTextPairs, image_size=16, num_workers=0, tokenizer_kind="wordpiece", on_error="skip", **settings
    )
    data.setup()
    assert "left out, number 1" in caplog.text
    assert {data.name_of(i, "val") for i in range(data.source.num_pictures("val"))} <= {
        f.name for f in folder.glob("*.png")
    }
    sets = {name: next(iter(batches)) for name, batches in data.foil_sets().items()}
    assert sets["colours"].image.shape == (2, 2, 3, 16, 16) and sets["foils"].image.shape == (2, 1, 3, 16, 16)
    assert np.allclose(sets["colours"].image[0, 1], sets["colours"].image[1, 0])
    assert data.tokenizer.decode(sets["colours"].ids[0, 1], skip_special_tokens=True) == "a blue one"
