"""Tar shards: what is read of them, that every sample comes once an epoch, and what is wrong with them."""

import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import task_lists
from alignlab import cli
from alignlab.data.image_text.annotations import read_annotations
from alignlab.data.image_text.modules import PairDataModule
from alignlab.data.image_text.pairs import ImageTextPairs
from alignlab.data.picture_tasks.own_judged import OwnJudged
from alignlab.data.picture_tasks.own_questions import OwnQuestions
from alignlab.data.shards.reading import are_shards, samples, shards_of

import numpy as np
import pytest
import torch
from PIL import Image

SIZE = 24


def shard(file: Path, members: list[tuple[str, bytes]]) -> Path:
    """A tar file as any other program would write it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file


def picture(number: int, kind: str = "PNG", **settings) -> bytes:
    """All pixels have the value `number`."""
    out = io.BytesIO()
    Image.fromarray(np.full((30, 40, 3), number, np.uint8)).save(out, kind, **settings)
    return out.getvalue()


def captioned(file: Path, numbers: range, split: str = "") -> Path:
    members = []
    for n in numbers:
        members += [(f"{n:06d}.png", picture(n)), (f"{n:06d}.json", json.dumps({"caption": f"number {n}"}).encode())]
    return shard(file, members)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """37 training samples in three shards of unequal length, and a folder of held-out ones."""
    folder = tmp_path_factory.mktemp("shards")
    for number, of in enumerate((range(0, 20), range(20, 21), range(21, 37))):
        captioned(folder / "train" / f"{number:03d}.tar", of)
    captioned(folder / "val" / "000.tar", range(200, 204))
    return folder


def test_members_of_one_name_are_a_sample(tmp_path: Path) -> None:
    """Keys end at the first dot; texts of .txt count where .json has no caption; folders belong to the key."""
    file = shard(
        tmp_path / "a.tar",
        [
            ("x/1.jpg", picture(1, "JPEG")),
            ("x/1.txt", "\ufeffone, ünd\r\n".encode()),
            ("y/1.seg.png", picture(2)),
            ("y/1.JPG", picture(3, "JPEG")),
            ("y/1.json", b'{"captions": ["a", "b"], "split": "val", "path": "http://x/1.jpg"}'),
            ("y/1.txt", b"not this"),
            ("y/2.cls", b"7"),
            (".hidden", b""),
        ],
    )
    first, second, third = samples(file, "annotations")
    assert (first.key, first.row, [p.name for p in first.pictures]) == ("x/1", {"caption": "one, ünd"}, ["x/1.jpg"])
    assert [p.name for p in second.pictures] == ["y/1.seg.png", "y/1.JPG"] and second.row["captions"] == ["a", "b"]
    assert third.suffixes == (".cls",) and not third.pictures
    assert second.pictures[0].read_bytes() == picture(2)
    left: list[ValueError] = []
    read = read_annotations(str(file), bad=left.append)
    assert {split: [one.captions for one in held] for split, held in read.items()} == {
        "": [("one, ünd",)],
        "val": [("a", "b")],
    }
    assert read[""][0].where == f"annotations={file}, a.tar, sample x/1"
    assert ["there is no picture, only .cls" in str(error) for error in left] == [True]
    with pytest.raises(ValueError, match=r"sample y/2: there is no picture, only .cls"):
        read_annotations(str(file))


def test_shards_are_named_by_folder_pattern_or_braces(shards: Path) -> None:
    train = shards / "train"
    names = [f"{n:03d}.tar" for n in range(3)]
    for place in (f"{train}", f"{train}/{{000..002}}.tar", f"{train}/*.tar", f"{train}/{{000,001,002}}.tar"):
        assert are_shards(place) and [file.name for file in shards_of(place, "k")] == names
    assert not are_shards(str(shards)) and not are_shards("photos/captions.csv")
    with pytest.raises(ValueError, match=r"annotations=.*: there is no shard .*003.tar"):
        shards_of(f"{train}/{{002..003}}.tar", "annotations")


def seen(folder: Path, rank: int, world_size: int, workers: int, batches: range, epoch: int = 0) -> list[list[int]]:
    """The numbers of the pictures in one process's batches, from a loader that begins at the first of them."""
    data = PairDataModule(
        ImageTextPairs,
        annotations=[{"file": f"{folder}/train/{{000..001}}.tar", "weight": 2}, str(folder / "train" / "002.tar")],
        val_annotations=str(folder / "val"),
        image_size=SIZE,
        batch_size=4,
        num_workers=workers,
        crop_scale=(1.0, 1.0),
        cache_gb=0.0,
    )
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size)
    data.setup("fit")
    loader = data.train_dataloader()
    loader.load_state_dict({"epoch": epoch, "batch": batches.start, "joint": 4 * world_size})
    found = []
    for place, batch in zip(batches, loader, strict=False):
        assert place in batches
        found.append(batch.image.amax((1, 2, 3)).tolist())
    return found


def test_every_sample_comes_as_often_as_its_source_says_on_two_ranks_and_two_workers(shards: Path) -> None:
    """Three shards, four readers; two epochs of 58 draws, of which 7 joint batches of 8 are taken."""
    epochs = [[seen(shards, rank, 2, 2, range(7), epoch) for rank in range(2)] for epoch in range(2)]
    for ranks in epochs:
        counts = Counter(n for rank in ranks for batch in rank for n in batch)
        assert sum(counts.values()) == 56 and set(counts) <= set(range(37))
        assert sum(n < 21 for n in counts) == 21, "each of the doubled source"
        assert all(count <= (2 if n < 21 else 1) for n, count in counts.items())
        assert 21 * 2 + 16 - sum(counts.values()) == 2, "the incomplete last batch alone is dropped"
    assert epochs[0] != epochs[1]
    one = [[*first, *second] for first, second in zip(*epochs[0], strict=True)]
    data = seen(shards, 0, 1, 0, range(14))
    assert [*map(sorted, one)] == [sorted([*data[2 * k], *data[2 * k + 1]]) for k in range(7)], "as one process with 8"


def test_resumed_twice_nothing_is_lost_or_seen_twice(shards: Path) -> None:
    for rank in range(2):
        whole = seen(shards, rank, 2, 1, range(7))
        parts = [
            seen(shards, rank, 2, workers, part)
            for workers, part in ((0, range(2)), (1, range(2, 5)), (0, range(5, 7)))
        ]
        assert [batch for part in parts for batch in part] == whole


def test_broken_shards_and_samples_are_left_out_and_said(shards: Path, tmp_path: Path) -> None:
    whole = (shards / "train" / "000.tar").read_bytes()
    (tmp_path / "000.tar").write_bytes(whole)
    (tmp_path / "001.tar").write_bytes(whole[: 1536 * 9 + 700])  # within a picture
    (tmp_path / "002.tar").write_text("<html>404</html>")
    (tmp_path / "003.tar").touch()
    ends = whole.rstrip(b"\0")
    (tmp_path / "004.tar").write_bytes(ends + b"\0" * (-len(ends) % 512))  # between two members
    (tmp_path / "005.tar").write_bytes(whole + whole)
    turned = Image.Exif()
    turned[0x0112] = 6
    upright = Image.fromarray(np.repeat(np.array([[[255, 0, 0]], [[0, 0, 255]]], np.uint8).repeat(20, 0), 20, 1))
    out = io.BytesIO()
    upright.save(out, "JPEG", exif=turned, quality=95)
    bad = [
        ("a.jpg", b"<html>404</html>"),
        ("b.jpg", picture(1, "JPEG")[:300]),
        ("c.jpg", b""),
        ("d.jpg", out.getvalue()),
    ]
    members = [
        (name.replace(".jpg", suffix), content)
        for name, png in bad
        for suffix, content in ((".jpg", png), (".txt", b"t"))
    ]
    members += [
        ("e.txt", b"a text"),
        ("f.jpg", picture(1, "JPEG")),
        ("g.jpg", picture(1, "JPEG")),
        ("g.txt", b"\xff\xfe\xfa"),
    ]
    members += [("h.jpg", picture(1, "JPEG")), ("h.json", b"[1]"), ("i.png", picture(250)), ("i.txt", b"twice")]
    shard(tmp_path / "006.tar", [*members, ("j.cls", b"1"), ("i.png", picture(250)), ("i.txt", b"another")])
    source = ImageTextPairs(
        str(tmp_path), SIZE, val_annotations=str(shards / "val"), on_error="skip", cache_gb=0.01, crop_scale=(1, 1)
    )
    pairs = [source.train_pair(serial) for serial in range(source.num_train)]
    texts = Counter(pair.caption for pair in pairs if pair is not None)
    assert texts["number 0"] == 4 and texts["t"] == 1 and texts["twice"] + texts["another"] == 1
    reasons = "\n".join(source.left_out.reasons)
    for wanted in (
        "001.tar: the shard can't be read behind 00000", "002.tar: the shard can't be read", "003.tar: the shard can't be read",
        "004.tar: the shard can't be read behind 000019: it ends without its mark", "005.tar: the shard can't be read behind 000019",
        "sample a: the picture", "sample b: the picture", "sample c: the picture", "sample e: there is no picture",
        "sample f: the picture 006.tar/f.jpg has no caption", "sample g: its .txt is no UTF-8 (byte 0xff)",
        "sample h: its .json must hold an object", "sample j: there is no picture",
    ):  # fmt: skip
        assert wanted in reasons, wanted
    (turned,) = (pair.picture for pair in pairs if pair is not None and pair.caption == "t")
    assert turned[12, 20, 0] > 200 and turned[12, 3, 2] > 200, "what was above is on the right"
    with pytest.raises(ValueError, match="the shard can't be read"):
        ImageTextPairs(str(tmp_path), SIZE, val_annotations=str(shards / "val"))
    compressed = tmp_path / "x.tar.gz"
    with tarfile.open(compressed, "w:gz"):
        pass
    with pytest.raises(ValueError, match=r"unpack it: compressed shards have no places"):
        read_annotations(str(compressed))


def test_a_large_set_of_shards_is_gone_through_once(shards: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("alignlab.data.image_text.picture_list.KEPT_FROM", 1)
    first = read_annotations(str(shards / "train"))[""]
    monkeypatch.setattr(tarfile, "open", None)
    again = read_annotations(str(shards / "train"))[""]
    assert [one.captions for one in again] == [one.captions for one in first] and len(again) == 37
    assert again[36].path == first[36].path and again[36].path.read_bytes() == picture(36)


def test_lists_are_packed_checked_and_inspected(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """What comes out of shards is what went in, for captions, questions and judged sentences."""
    rows = []
    for n in range(5):
        task_lists.picture(tmp_path / f"{n}.jpg", n)
        rows.append({"image": f"{n}.jpg", "captions": [f"a {n}", "b, ünd"], "split": "val" if n > 2 else "train"})
    rows.append({"image": "none.jpg", "caption": "there is none"})
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "packed"
    command = ["shards", "pack", str(tmp_path / "captions.jsonl"), str(out), "--max-side", "40"]
    assert cli.main(command) == 0
    assert "left out: LIST=" in (said := capsys.readouterr().out) and "1 shard, 5 samples" in said
    assert cli.main(command) == 2 and "holds shards already" in capsys.readouterr().err
    packed, plain = (
        ImageTextPairs(str(place), SIZE, on_error="skip", cache_gb=0.01) for place in (out, tmp_path / "captions.jsonl")
    )
    assert [one.captions for one in packed.splits["train"]] == [one.captions for one in plain.splits["train"]]
    assert np.abs(packed.picture(0, "val").astype(int) - plain.picture(0, "val")).mean() < 12
    assert max(Image.open(packed.splits["val"][0].path.open()).size) == 40
    assert cli.main(["shards", "check", str(out)]) == 0
    assert cli.main(["shards", "inspect", f"{out}/00000.tar", "--json", str(tmp_path / "all.json")]) == 0
    said = capsys.readouterr().out
    assert "5 samples are whole, 0 things are wrong" in said and "in all 5 samples" in said
    assert json.loads((tmp_path / "all.json").read_text())["members"] == {".jpg": 5, ".txt": 5, ".json": 5}
    content = (out / "00000.tar").read_bytes()
    (out / "00000.tar").write_bytes(content.replace(b"\xff\xd8\xff", b"\0\0\0", 1))
    assert cli.main(["shards", "check", str(out)]) == 3 and "000000000.jpg in" in capsys.readouterr().out

    questions = task_lists.vqa(tmp_path, "train2014", 12)
    assert cli.main(["shards", "pack", str(questions), str(tmp_path / "asked"), "--kind", "questions"]) == 0
    sources = [
        OwnQuestions(str(place), SIZE, val_share=0.4, cache_gb=0.01) for place in (questions, tmp_path / "asked")
    ]
    both = [
        Counter((row.text, str(row.told), row.kind) for s in ("train", "val") for row in one.rows_of(s))
        for one in sources
    ]
    assert both[0] == both[1] and sources[0].answers == sources[1].answers

    pairs = task_lists.nlvr2(tmp_path, "train", 4)
    assert cli.main(["shards", "pack", str(pairs), str(tmp_path / "judged"), "--kind", "judged", "--shuffle", "3"]) == 0
    judged = [OwnJudged(str(place), SIZE, val_share=0.4, cache_gb=0.01) for place in (pairs, tmp_path / "judged")]
    shown = [
        {row.text: (row.label, torch.tensor(np.stack(row.pictures)).float().mean().item()) for n in range(one.num_rows("val")) if (row := one.row(n, "val"))}
        for one in judged
    ]  # fmt: skip
    assert judged[1].pictures_a_row == 2 and judged[1].labels == ("false", "true")
    assert all(shown[0][text] == shown[1][text] for text in shown[0].keys() & shown[1].keys())


def test_a_data_set_of_the_hub_is_packed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Pictures as the files that they are, classes by name, all columns that JSON knows."""
    datasets = pytest.importorskip("datasets")
    rows = {
        "image": [
            {"bytes": picture(10 * n, kind), "path": None} for n, kind in enumerate(("PNG", "JPEG", "PNG", "PNG"))
        ],
        "question": [f"q {n}" for n in range(4)],
        "answers": [[{"answer": "yes", "answer_id": 1}, {"answer": "no", "answer_id": 2}]] * 4,
        "label": [0, 1, 1, 0],
    }
    rows["image"][2] = {"bytes": b"<html>", "path": None}
    answers = [{"answer": datasets.Value("string"), "answer_id": datasets.Value("int64")}]
    features = {"image": datasets.Image(), "question": datasets.Value("string"), "answers": answers}
    features["label"] = datasets.ClassLabel(names=["bad", "good"])
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_dict(rows, datasets.Features(features)).to_parquet(tmp_path / "set" / "train.parquet")
    out = tmp_path / "shards"
    assert cli.main(["shards", "pack", f"hub:{tmp_path / 'set'}", str(out)]) == 0
    assert "row 3: the picture image of" in capsys.readouterr().out
    first, second, _ = samples(out / "00000.tar", "k")
    assert first.pictures[0].read_bytes() == picture(0) and second.pictures[0].name.endswith(".jpg")
    assert (first.row["label"], second.row["label"]) == ("bad", "good")
    source = OwnQuestions(str(out), SIZE, val_share=0.5, cache_gb=0.01)
    told = [row.told for split in ("train", "val") for row in source.rows_of(split)]
    assert told == [[["yes", 0.5], ["no", 0.5]]] * 3
    assert cli.main(["shards", "pack", "hub:/nowhere/at/all", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err.startswith("error: hub:/nowhere/at/all: ")
