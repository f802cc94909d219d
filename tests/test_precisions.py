"""Every model trains, validates, evaluates and exports in the precisions that a card is used with."""

from collections.abc import Callable
from pathlib import Path

from alignlab.runs import train as run
from small_data import shrink
from tiny_run import TINY_ALBEF, TINY_LANGUAGE, TINY_LLAMA, TINY_SCENES, TINY_TASKS, TINY_TOWERS

import pytest
import torch
from omegaconf import DictConfig

Prepare = Callable[..., DictConfig]
SHORT = (
    "trainer=cpu",
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
    "++trainer.limit_val_batches=1",
    "trainer.num_sanity_val_steps=0",
    "callbacks.progress=null",
    "callbacks.curves=null",
)
MODELS = {
    "clip": (*TINY_SCENES, *TINY_TOWERS),
    "siglip": (*TINY_SCENES, *TINY_TOWERS, "callbacks=default"),
    "albef": (*TINY_SCENES, *TINY_ALBEF),
    "albef_vqa": TINY_TASKS["albef_vqa"][1:],
    "sft": (*TINY_LANGUAGE, *TINY_LLAMA),
    "reward": TINY_LANGUAGE,
    "dpo": TINY_LANGUAGE,
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch.setattr)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("model", MODELS)
def test_every_model_runs(prepared: Prepare, tmp_path: Path, model: str, precision: str) -> None:
    words = MODELS[model]
    if model == "dpo":
        sft = ("model=sft", *SHORT, *MODELS["sft"], "trainer.max_steps=1")
        run.train(prepared(tmp_path / "sft", *sft))
        words = (f"model.net.path={tmp_path / 'sft'}", *words)
    result = run.train(prepared(tmp_path / "run", f"model={model}", *SHORT, *words, f"trainer.precision={precision}"))
    assert result.status == "ok" and result.steps == 2
    assert torch.tensor(result.metrics["val/loss"]).isfinite()


def test_float16_throughout_is_refused(prepared: Prepare, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"trainer\.precision=16-true can't train"):
        run.train(prepared(tmp_path, "model=clip", *SHORT, *MODELS["clip"], "trainer.precision=16-true"))
