"""Referring expressions from refs and instances: a row each, boxes where the thing is, and pickles that run nothing."""

import json
import os
import pickle
from pathlib import Path

from alignlab.data.image_text.batches import HELD_OUT_IDS
from alignlab.data.image_text.modules import PairDataModule
from alignlab.data.picture_tasks.referring import ReferringExpressions
from alignlab.evaluation.grounding import box_ranking
from alignlab.files.plain_pickle import read_plain_pickle

import numpy as np
import pytest
import torch
from PIL import Image

SIZE = 40
SPLITS = ("train", "train", "train", "val", "testA")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures of 80 x 40 with a red thing and a blue one; refs speak of the red ones, twice each."""
    images, things, refs = [], [], []
    (tmp_path / "train2014").mkdir()
    for n, split in enumerate(SPLITS):
        name = f"COCO_train2014_{n:012d}.jpg"
        boxes = [[4 + 4 * n, 8, 16, 20], [50, 4, 24, 32]]
        picture = np.full((40, 80, 3), 255, np.uint8)
        for (left, top, wide, high), colour in zip(boxes, ((255, 0, 0), (0, 0, 255)), strict=True):
            picture[top : top + high, left : left + wide] = colour
        Image.fromarray(picture).save(tmp_path / "train2014" / name, quality=95)
        images.append({"id": n, "file_name": name, "width": 80, "height": 40, "license": 1})
        things += [{"id": 10 * n + k, "image_id": n, "bbox": box, "category_id": 1} for k, box in enumerate(boxes)]
        said = [
            {"sent": text, "raw": text, "sent_id": k, "tokens": text.split()}
            for k, text in enumerate((f"red {n}", "left"))
        ]
        ids = {"ref_id": n, "ann_id": 10 * n, "image_id": n, "category_id": 1, "sent_ids": [0, 1]}
        refs.append({**ids, "file_name": name.replace(".jpg", f"_{n}.jpg"), "split": split, "sentences": said})
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    (tmp_path / "refs.json").write_text(json.dumps(refs))
    (tmp_path / "instances.json").write_text(json.dumps({"info": {}, "images": images, "annotations": things}))
    (tmp_path / "dets.json").write_text(
        json.dumps({str(n): [[40, 20, 10, 10, 0.9], [4 + 4 * n, 9, 16, 18, 0.5]] for n in range(5)})
    )
    return tmp_path


@pytest.mark.parametrize("refs", ["refs(unc).p", "refs.json"])
def test_a_row_is_an_expression_and_its_box_shows_the_thing(folder: Path, refs: str) -> None:
    data = PairDataModule(
        ReferringExpressions, annotations=str(folder / refs), image_size=SIZE, batch_size=3, num_workers=0
    )
    data.setup("fit")
    source = data.source
    assert [source.num_pictures(split) for split in ("train", "val", "testA")] == [6, 2, 2]
    batch = next(iter(data.train_dataloader()))
    assert batch.image.shape == (3, 3, SIZE, SIZE) and set(batch.image_id.tolist()) <= {0, 1, 2}
    epoch = [source.train_pair(n) for n in range(6)]
    assert sorted(pair.caption for pair in epoch) == ["left"] * 3 + ["red 0", "red 1", "red 2"]
    held = next(iter(data.val_dataloader()))
    assert held.image_id.tolist() == [HELD_OUT_IDS + 3] * 2, (
        "two expressions about one picture aren't each other's negatives"
    )
    for split in ("val", "testA"):
        for index in range(2):
            ((start, end, (box,)),) = source.grounded_phrases(index, split)
            assert source.captions_of(index, split)[0][start:end] == source.captions_of(index, split)[0]
            red = torch.from_numpy(source.picture(index, split).astype(np.float32))
            red = (red[..., 0] - red[..., 2]).clamp(min=0) / 255
            left, top, right, bottom = box
            assert red[top + 1 : bottom - 1, left + 1 : right - 1].min() > 0.8 and red.sum() < 1.1 * (right - left) * (
                bottom - top
            )
            assert box_ranking(red, source.candidate_boxes(index, split), [box]) == (1.0, 0.5)


def test_boxes_of_a_detector(folder: Path) -> None:
    """As the published code chooses; none of them is the thing's own box."""
    lists = [{"file": str(folder / "refs.json"), "detections": str(folder / "dets.json")}]
    source = ReferringExpressions(lists, SIZE, cache_gb=0.01)
    ((*_, (box,)),) = source.grounded_phrases(0, "val")
    heat = torch.zeros(SIZE, SIZE)
    heat[box[1] : box[3], box[0] : box[2]] = 1
    assert box not in source.candidate_boxes(0, "val") and len(source.candidate_boxes(0, "val")) == 2
    assert box_ranking(heat, source.candidate_boxes(0, "val"), [box]) == (1.0, 0.5)


class Runs:
    """What a pickle may make of itself."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("ran",)


def test_a_pickle_runs_nothing(folder: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    for protocol in (0, 2, 4):
        (folder / "refs(unc).p").write_bytes(pickle.dumps([{"ref_id": 1}, Runs()], protocol=protocol))
        with pytest.raises(ValueError, match=r"it names (posix|nt).mkdir.*save it as JSON") as caught:
            ReferringExpressions(str(folder / "refs(unc).p"), SIZE)
        assert "\n" not in str(caught.value) and not (folder / "ran").exists()
    (folder / "old.p").write_bytes(b"(lp0\n(dp1\nS'sent'\np2\nS'caf\\xc3\\xa9'\np3\nsa.")  # Python 2, protocol 0
    assert read_plain_pickle(folder / "old.p", "k") == [{"sent": "café"}]
    for content in (b"", b"<html>", b"\x80\x02]q"):
        (folder / "x.p").write_bytes(content)
        with pytest.raises(ValueError, match=r"k=.*x\.p: can't be read"):
            read_plain_pickle(folder / "x.p", "k")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ann_id": 99}, "row 2: ann_id 99 isn't in instances"),
        ({"image_id": None}, "row 2: image_id null isn't in instances"),
        ({"sentences": []}, "row 2: sentences is an empty list"),
        ({"sentences": [{"tokens": []}]}, r"row 2, expression 1: there is no sent \(or raw\)"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, change: dict, message: str) -> None:
    refs = json.loads((folder / "refs.json").read_text())
    refs[1] |= change
    (folder / "refs.json").write_text(json.dumps(refs))
    with pytest.raises(ValueError, match=message):
        ReferringExpressions(str(folder / "refs.json"), SIZE)
    source = ReferringExpressions(str(folder / "refs.json"), SIZE, on_error="skip", cache_gb=0.01)
    assert source.num_rows("train") == 4 and len(source.left_out.reasons) == 1
