"""Tar shards of pictures with captions through the chain, and how well captions fit, by a model."""

import io
import json
import tarfile
from pathlib import Path

from alignlab.cli import main
from alignlab.corpus.fingerprints import cleaned
from alignlab.data.shards.reading import samples

import numpy as np
import pytest
import torch
from PIL import Image


def drawn(number: int) -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(number).integers(0, 255, (8, 8, 3), np.uint8)
    Image.fromarray(noise).resize((48, 48), Image.Resampling.NEAREST).save(out, "PNG")
    return out.getvalue()


def shard(file: Path, made: list[dict[str, bytes]]) -> Path:
    with tarfile.open(file, "w") as tar:
        for number, members in enumerate(made):
            for suffix, content in members.items():
                info = tarfile.TarInfo(f"{number:05d}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return file


def clean(tmp_path: Path, *words: str) -> dict[str, str]:
    """Reason of each key that was dropped."""
    assert main(["corpus", "clean", str(tmp_path / "in"), "--to", str(tmp_path / "out"), *words]) == 0
    lost = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()]
    return {json.loads(row["row"]).get("__key__", "broken"): row["reason"] for row in lost}


def test_shards_stay_shards(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    captions = [
        f"number {n} has a picture of {word} noise" for n, word in enumerate("red green blue grey pale".split())
    ]
    captions += [captions[0], "write to jo@example.com for the seventh one", "-", "a picture that is cut", "no caption"]
    made = [{"png": drawn(n), "txt": text.encode()} for n, text in enumerate(captions)]
    made[5]["png"] = drawn(0)
    made[6]["json"] = json.dumps({"caption": captions[6], "width": 48}).encode()
    made[8]["png"] = drawn(8)[:90]
    made[9]["txt"] = b"\xff\xfe\x00broken"
    file = shard(tmp_path / "in" / "00000.tar", made)
    shard(tmp_path / "in" / "00001.tar", [{"png": drawn(30), "txt": b"another shard with one picture"}])
    gone = clean(tmp_path, "--steps", "quality", "exact_dup", "pictures", "pii")
    assert gone["broken"].startswith("broken sample")
    assert {key: gone.get(key) for key in ("00005", "00007", "00008")} == {
        "00005": "same picture",
        "00007": "min_letters",
        "00008": "broken picture",
    }
    out = tmp_path / "out" / "data"
    kept = {one.key: one for one in samples(out / "00000.tar", "out")}
    assert list(kept) == ["00000", "00001", "00002", "00003", "00004", "00006"]
    before = {one.key: one for one in samples(file, "in", lambda error: None)}
    for key, one in kept.items():
        assert one.pictures[0].read_bytes() == before[key].pictures[0].read_bytes()
        assert one.suffixes == before[key].suffixes
    assert kept["00006"].row == {"caption": "write to <email> for the seventh one", "width": 48}
    written = {one.name: one.read_bytes() for one in kept["00006"].members}
    assert written["00006.txt"] == b"write to <email> for the seventh one"
    assert [one.key for one in samples(out / "00001.tar", "out")] == ["00000"]
    assert cleaned(str(out))[str(out)]["as cleaned"] is True


class Colours:
    """Stands for a CLIP: a picture and a text are where their colour is."""

    asked: list[int] = []  # noqa: RUF012  how many pictures at a time

    def image_features(self, pictures: list[Image.Image], batch_size: int = 32) -> torch.Tensor:
        Colours.asked.append(len(pictures))
        means = torch.stack([torch.from_numpy(np.asarray(one, np.float32).mean((0, 1))) for one in pictures])
        return torch.nn.functional.normalize(means, dim=-1)

    def text_features(self, texts: list[str], batch_size: int = 256) -> torch.Tensor:
        rows = [[float(word in text.split()) for word in ("red", "green", "blue")] for text in texts]
        return torch.nn.functional.normalize(torch.tensor(rows) + 1e-6, dim=-1)


def test_low_scores_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import alignlab

    monkeypatch.setitem(vars(alignlab), "load", lambda place, device: Colours())
    Colours.asked.clear()
    (tmp_path / "in").mkdir()
    rows = []
    for number in range(21):
        colour = ["red", "green", "blue"][number % 3]
        Image.new("RGB", (20, 20), {"red": "#d01010", "green": "#10d010", "blue": "#1010d0"}[colour]).save(
            tmp_path / "in" / f"{number}.png"
        )
        said = "green" if number in (3, 5) else colour
        rows.append({"image": f"{number}.png", "caption": f"all is {said} here in {number}"})
    rows.append({"image": "20.png", "captions": ["all is blue", "all is red"]})
    rows.append({"image": "nowhere.png", "caption": "there is none"})
    (tmp_path / "in" / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    where = ["--set", "clip_score.model=run", "clip_score.threshold=0.5", "clip_score.batch_size=4"]
    assert (
        main(["corpus", "clean", str(tmp_path / "in"), "--to", str(tmp_path / "out"), "--steps", "clip_score", *where])
        == 0
    )
    lost = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()]
    assert [(row["line"] - 1, row["reason"]) for row in lost] == [
        (3, "low score"),
        (5, "low score"),
        (22, "broken picture"),
    ]
    assert 0 < lost[0]["evidence"]["score"] < 0.3 and lost[0]["evidence"]["limit"] == 0.5
    assert max(Colours.asked) == 4 and sum(Colours.asked) == 21


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "clip_score.model is needed"),
        (["clip_score.model=x"], "clip_score.threshold is None"),
        (["clip_score.model=x", "clip_score.threshold=2"], "clip_score.threshold is 2"),
        (["clip_score.model=nowhere/at/all", "clip_score.threshold=0.1"], "nowhere/at/all"),
    ],
)
def test_what_a_score_needs(tmp_path: Path, capsys: pytest.CaptureFixture, words: list[str], said: str) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    (tmp_path / "list.jsonl").write_text(json.dumps({"image": "a.png", "caption": "a caption of it"}) + "\n")
    how = ["--set", *words] if words else []
    assert (
        main(
            [
                "corpus",
                "audit",
                str(tmp_path / "list.jsonl"),
                "--to",
                str(tmp_path / "out"),
                "--steps",
                "clip_score",
                *how,
            ]
        )
        == 2
    )
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
