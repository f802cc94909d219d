"""experiment=albef_published at a small size: a run whose constants follow its data, over two lists of pictures."""

import csv
from collections.abc import Callable
from pathlib import Path

from alignlab.methods.albef import AlbefMethod
from alignlab.methods.step import Step
from alignlab.runs import train as run

import pytest
from omegaconf import DictConfig
from PIL import Image

SMALL = (
    "experiment=albef_published callbacks=default trainer=cpu model.queue_size=24 data.image_size=32 data.batch_size=4 "
    "data.tokenizer=null data.vocab_size=200 data.num_workers=0 data.val_share=0.2 model.net.encoder.text_weights=null "
    "model.net.encoder.vision.name=null model.net.encoder.vision.pretrained=false model.net.encoder.vision.width=16 "
    "model.net.encoder.vision.depth=1 model.net.encoder.vision.heads=2 model.net.encoder.text_width=16 "
    "model.net.encoder.heads=2 model.net.encoder.text_layers=1 model.net.encoder.fusion_layers=1 optim.warmup_steps=1 "
    "trainer.max_epochs=2 trainer.log_every_n_steps=1"
).split()


def test_a_ramp_in_epochs() -> None:
    for number, wanted in ((0, 0.0), (5, 0.1), (20, 0.4), (50, 0.4)):
        assert Step(number, of_epoch=20).ramped(0.4, 0, 0, 1.0) == pytest.approx(wanted)
    assert Step(12, of_epoch=20).ramped(0.4, 0, 10, 0.5) == pytest.approx(0.08), "from its start on"
    assert Step(0).ramped(0.4, 0, 0, 1.0) == 0.0
    with pytest.raises(ValueError, match="a ramp in epochs needs to know an epoch's steps"):
        Step(1).ramped(0.4, 0, 0, 1.0)


@pytest.mark.slow
def test_a_small_run(prepared: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lists, seen = [], []
    for name, number in (("coco", 16), ("cc", 30)):
        (tmp_path / name).mkdir()
        rows = "".join(f"{n}.png,Picture number {n} of {name}!\n" for n in range(number))
        (tmp_path / name / "list.csv").write_text(f"image,caption\n{rows}")
        for n in range(number):
            Image.new("RGB", (40, 40), (n * 5, 90, 100 + n)).save(tmp_path / name / f"{n}.png")
        lists.append(f"{tmp_path}/{name}/list.csv")
    teaching = AlbefMethod._teaching
    monkeypatch.setattr(
        AlbefMethod, "_teaching", lambda self, step: seen.append(teaching(self, step)[0]) or (seen[-1], True)
    )
    words = f"data.annotations=[{lists[0]},{{file: {lists[1]}, weight: 0.5}}]"
    result = run.train(prepared(tmp_path / "run", *SMALL, words))
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert result.status == "ok" and result.steps % 2 == 0
    each = result.steps // 2
    assert sum(bool(row["val/loss"]) for row in rows) == 2, "once an epoch, its end too"
    assert max(seen) == pytest.approx(0.4) and 0.4 / each in [pytest.approx(value) for value in seen]
    assert [value for value in seen if value == 0.0], "the first step"
