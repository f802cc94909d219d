"""A list with everything that is wrong with lists and pictures: nothing stops the run, each is said with its reason."""

import json
import struct
import zlib
from pathlib import Path

from alignlab import cli
from alignlab.data.image_text.pairs import ImageTextPairs
from alignlab.data.picture_tasks.own_questions import OwnQuestions

import numpy as np
import pytest
from PIL import Image

GOOD = ("cmyk.jpg", "deep.png", "palette.png", "turned.jpg", "moving.gif", "one.png", "plain.png")
BROKEN = {"cut.jpg": "can't be read", "page.jpg": "can't be read", "huge.png": "can't be read"}
ROWS = {
    '{"image": "plain.png"': "no JSON",
    '{"image": "plain.png"}': "has no caption",
    '{"image": "plain.png", "caption": 7}': "a text or a list of texts",
    '["plain.png", "a caption"]': "must be an object",
    '{"caption": "of nothing"}': "none of the keys",
    '{"image": "plain.png", "caption": "  "}': "has no caption",
    '{"image": "nowhere.png", "caption": "there is none"}': "there is no picture",
    '{"image": "empty.png", "caption": "zero bytes"}': "is empty",
}
LATIN = '{"image": "plain.png", "caption": "caf\u00e9"}'.encode("latin-1")
TWICE = '{"image": "plain.png", "caption": "a plain.png"}'  # a caption of a picture that is there already


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    plain = Image.fromarray(noise)
    plain.save(tmp_path / "plain.png")
    plain.save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:900])
    (tmp_path / "empty.png").touch()
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    plain.convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    palette = plain.quantize(8)
    palette.save(tmp_path / "palette.png", transparency=3)
    left_red = Image.new("RGB", (40, 80), (0, 0, 255))
    left_red.paste((255, 0, 0), (0, 0, 40, 40))  # the upper half; turned by the tag, the right one
    exif = Image.Exif()
    exif[0x0112] = 6
    left_red.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    plain.save(tmp_path / "moving.gif", save_all=True, append_images=[plain.rotate(90)])
    Image.new("RGB", (1, 1), (9, 9, 9)).save(tmp_path / "one.png")
    (tmp_path / "huge.png").write_bytes(_header(20_000, 20_000))
    rows = [json.dumps({"image": name, "caption": f"a {name}"}) for name in (*GOOD, *BROKEN)]
    rows[3:3] = list(ROWS)
    text = "\ufeff" + "\r\n".join([*rows, TWICE, ""])
    (tmp_path / "zoo.jsonl").write_bytes(text.encode() + LATIN)
    held = json.dumps({"image": "turned.jpg", "caption": "held out"})
    (tmp_path / "val.jsonl").write_text(held)
    return tmp_path / "zoo.jsonl"


def _header(width: int, height: int) -> bytes:
    """A PNG that says it is that large and ends there."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def test_nothing_stops_a_run_and_each_is_said(zoo: Path) -> None:
    source = ImageTextPairs(str(zoo), 32, val_annotations=str(zoo.parent / "val.jsonl"), on_error="skip", cache_gb=0.01)
    assert source.num_train == len(GOOD) + len(BROKEN)
    pairs = [source.train_pair(serial) for serial in range(2 * source.num_train)]
    assert {pair.caption for pair in pairs if pair is not None} == {f"a {name}" for name in GOOD}
    reasons = source.left_out.reasons
    assert len(reasons) == len(ROWS) + len(BROKEN) + 1
    for reason, line in zip(reasons, [*range(4, 4 + 6)], strict=False):
        assert f"zoo.jsonl, line {line}" in reason
    for wanted in (*ROWS.values(), *BROKEN, "line 20: byte 0xe9 is no UTF-8"):
        assert any(wanted in reason for reason in reasons), (wanted, reasons)
    upright = source.picture(0, "val")
    assert upright[16, 4, 2] > 200 > 60 > upright[16, 4, 0] and upright[16, 28, 0] > 200  # blue left, red right


def test_too_many_end_the_run_in_a_line(zoo: Path) -> None:
    with pytest.raises(ValueError, match="max_skipped is 3; more rows and pictures than that") as caught:
        ImageTextPairs(str(zoo), 32, on_error="skip", max_skipped=3)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"zoo.jsonl, line (4|20): "):  # text is decoded ahead
        ImageTextPairs(str(zoo), 32)


def test_tasks_and_shards_leave_out_the_same(zoo: Path) -> None:
    """Questions about the same pictures from a table, and both as shards; packing says what reading would."""
    names = [*GOOD, *BROKEN, "nowhere.png", "empty.png"]
    lines = [f'{name},"is it ""{name}"", or not?",yes' for name in names]
    lines[2:2] = ['plain.png,an open "quote,yes,', 'plain.png,"not closed,yes', ",whose?,no", "plain.png,unanswered,"]
    content = "\ufeffImage,Question,Answer\r\n".encode() + "\r\n".join([*lines, "plain.png,is it,no", ""]).encode()
    (zoo.parent / "asked.csv").write_bytes(content + b"plain.png,caf\xe9?,yes\r\n")
    (zoo.parent / "val.csv").write_text("image,question,answer\nturned.jpg,held out,yes")
    places = [str(zoo.parent / "asked.csv"), str(zoo.parent / "shards")]
    assert cli.main(["shards", "pack", places[0], places[1], "--kind", "questions"]) == 0
    for place, number in zip(places, (len(BROKEN) + 2 + 5, 0), strict=True):
        source = OwnQuestions(place, 32, val_annotations=str(zoo.parent / "val.csv"), on_error="skip", cache_gb=0.01)
        asked = [source.question(serial, "train") for serial in range(source.num_train)]
        texts = sorted(one.text for one in asked if one is not None)
        assert texts == sorted([*(f'is it "{name}", or not?' for name in GOOD), "is it"])
        assert len(source.left_out.reasons) == number, source.left_out.reasons
        upright = source.question(0, "val").picture
        assert upright[16, 4, 2] > 200 and upright[16, 28, 0] > 200
    out = zoo.parent / "captions"
    assert cli.main(["shards", "pack", str(zoo), str(out)]) == 0 and cli.main(["shards", "check", str(out)]) == 0
    packed = ImageTextPairs(str(out), 32, val_annotations=str(zoo.parent / "val.jsonl"), cache_gb=0.01)
    pairs = [packed.train_pair(serial) for serial in range(packed.num_train)]
    assert {pair.caption for pair in pairs} == {f"a {name}" for name in GOOD} and len(pairs) == len(GOOD)
