"""`alignlab plan model=...`: imagined steps keep what real ones keep, the command, what it refuses."""

from collections.abc import Callable
from functools import partial

from alignlab.cli import main
from alignlab.cost.picture_plan import PictureJob, picture_batch, picture_parts
from alignlab.cost.saved_activations import saved_bytes
from alignlab.losses.contrastive import InfoNce
from alignlab.methods.albef import AlbefMethod
from alignlab.methods.albef_nlvr2 import AlbefNlvr2Method
from alignlab.methods.albef_vqa import AlbefVqaMethod
from alignlab.methods.clip import ClipMethod
from alignlab.methods.clip_vqa import ClipVqaMethod
from alignlab.methods.step import Step
from tiny_tasks import net, towers
from tiny_training import WORDS

import pytest
import torch

WORDS_AND_ANSWERS = WORDS._replace(answers=9)
METHODS = {
    "clip": partial(ClipMethod, towers(), InfoNce(), gradient_checkpointing=True),
    "albef": partial(AlbefMethod, net(), queue_size=16),
    "albef_vqa": partial(AlbefVqaMethod, net(dropout=0.1)),
    "albef_nlvr2": partial(AlbefNlvr2Method, net()),
    "clip_vqa": partial(ClipVqaMethod, towers()),
}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", METHODS)
def test_imagined_steps_keep_what_real_ones_keep(name: str, precision: str) -> None:
    build: Callable = partial(METHODS[name], vocabulary=WORDS_AND_ANSWERS)
    job = PictureJob(rows=6, image_size=16, tokens=7, precision=precision, answers=2, gpu=False)
    parts, counted = picture_parts(build, WORDS_AND_ANSWERS, job, Step)
    method = build().train()
    batch = picture_batch(method, job)
    known = [*method.parameters(), *method.buffers()]
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        real = saved_bytes(lambda: method(batch, Step(10**6)), known)
    assert parts["activations"] == pytest.approx(real, rel=0.01) and real > 10_000
    assert counted.trainable == sum(p.numel() for p in method.parameters() if p.requires_grad)
    assert parts["weights"] == 4 * sum(p.numel() for p in method.parameters())
    assert parts["gradients"] == 4 * counted.trainable and parts["optimizer"] == 8 * counted.trainable


def test_the_command(capsys: pytest.CaptureFixture) -> None:
    words = ["model=clip_entailment", "data.batch_size=8", "trainer.precision=bf16-true"]
    assert main(["plan", *words, "--memory", "11", "--cpu"]) == 0
    shown = capsys.readouterr().out
    assert "8 rows of 48 px and 20 tokens, bf16-true" in shown and "fits in 11 GB" in shown and "context" not in shown
    for more, said in (
        (["data.batch_sise=8"], "did you mean batch_size?"),
        (["model/net=albef_tiny"], "take model/net=clip_tiny or model=albef_entailment"),
        (["trainer.precision=16-mixed"], "trainer.precision=16-mixed has no plan"),
    ):
        assert main(["plan", *words[:1], *more]) == 2 and said in capsys.readouterr().err
    assert main(["plan", "model=sft"]) == 2 and "alignlab plan smollm2-135m --stage sft" in capsys.readouterr().err
    assert main(["plan", "model=clip", "model.micro_batch_size=4"]) == 2
    assert "model.micro_batch_size=4 has no plan" in capsys.readouterr().err


@pytest.mark.slow
def test_questions_at_vit_b16_fit_11_gb_eight_at_a_time(capsys: pytest.CaptureFixture) -> None:
    words = ["model=albef_vqa", "model/net=albef_vit_b16", "optim=adamw", "data.image_size=384"]
    for rows, said in ((8, "fits in 11 GB"), (16, "does not fit in 11 GB")):
        assert main(["plan", *words, f"data.batch_size={rows}", "trainer.precision=bf16-mixed", "--memory", "11"]) == 0
        assert said in capsys.readouterr().out
