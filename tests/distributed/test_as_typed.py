"""The card's matrix as a user types it: every model under every trainer, default callbacks and optimizer, through to export, resume and reload.

An eighth of it belongs to the default run: fsdp, where most was wrong once, and ALBEF under ddp; one of these resumes there. The rest is slow, and so
are those again, resumed.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from alignlab.runs.building import load_system
from tiny_run import REPOSITORY

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

SHORT = ("trainer.max_steps=3", "trainer.val_check_interval=3", "data.batch_size=8")
VISION, LANGUAGE = ("clip", "siglip", "albef", "albef_retrieval"), ("lm", "sft", "reward", "dpo", "ppo", "grpo", "gkd")
TASKS = ("albef_entailment", "albef_vqa", "albef_nlvr2", "clip_entailment", "clip_vqa")
TRAINERS = ("cpu", "ddp", "fsdp", "deepspeed")
USUAL = {("albef", "ddp"), ("albef", "fsdp"), ("sft", "fsdp")}
RESUMED = {("sft", "fsdp")}
SECONDS = 180  # no run takes longer on two cores that have nothing else to do


SUPPORT = REPOSITORY / "tests" / "support"
REWARD = "tiny_policy.count_letters"
ON_POLICY = (f"model.reward={REWARD}", "model.response_length=8", "trainer.limit_val_batches=2")
FROM_POLICY = {"dpo": (), "ppo": ON_POLICY, "grpo": ON_POLICY, "gkd": ON_POLICY}  # what follows an SFT


def cells() -> Iterator[object]:
    """(model, trainer, whether it is resumed), with marks."""
    for model in VISION + TASKS + LANGUAGE:
        for trainer in TRAINERS:
            usual, resumed = (model, trainer) in USUAL, (model, trainer) in RESUMED
            tier = [pytest.mark.deepspeed] if trainer == "deepspeed" else []
            if usual:
                yield pytest.param(model, trainer, resumed, marks=pytest.mark.distributed, id=f"{model}-{trainer}")
            if not usual or not resumed:
                marks = [pytest.mark.slow, *tier]
                yield pytest.param(model, trainer, True, marks=marks, id=f"{model}-{trainer}-resumed")


def typed(folder: Path, *overrides: str) -> dict:
    """Runs train.py in a process of its own and returns result.json; what it printed is the error's text."""
    environment = {
        k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "RANK", "LOCAL_RANK", "WORLD_SIZE")
    }
    environment["PYTHONPATH"] = os.pathsep.join((str(SUPPORT), environment.get("PYTHONPATH", "")))  # of the reward
    command = [sys.executable, "train.py", *overrides]
    if not any(override.startswith("resume=") for override in overrides):
        command.append(f"hydra.run.dir={folder}")
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=3 * SECONDS)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that DPO, PPO and GRPO start from, trained at its first use."""
    folder = tmp_path_factory.mktemp("policy") / "sft"
    typed(folder, "model=sft", "trainer=cpu", *SHORT)
    return folder


@pytest.mark.parametrize(("model", "trainer", "resumed"), cells())
def test_runs_exports_resumes_and_reloads(
    model: str, trainer: str, resumed: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    start = FROM_POLICY.get(model, ())
    if model in FROM_POLICY:
        start += (f"model.net.path={request.getfixturevalue('policy')}",)
    if model == "gkd":
        start += (f"model.teacher.path={request.getfixturevalue('policy')}",)
    if (model, trainer) in USUAL and model in VISION:
        start += ("data.num_val=64",)  # the evaluators' pictures: half of the time
    folder = tmp_path / "run"
    result = typed(folder, f"model={model}", f"trainer={trainer}", *start, *SHORT)
    assert (result["status"], result["steps"]) == ("ok", 3), result["reason"]
    assert result["world_size"] == (1 if trainer == "cpu" else 2)
    assert (folder / "samples" / "curves.png").exists()
    if model in VISION:
        assert {"val/text_to_image_recall_at_1", "val/zero_shot_variants_accuracy_at_1"} <= result["metrics"].keys()
        assert (folder / "samples" / "retrieval.png").exists()
    elif model in TASKS:
        assert {"val/ranked_accuracy", "val/accuracy"} & result["metrics"].keys()
    else:
        check_export(folder / "export", model)
    if model in ("ppo", "grpo", "gkd"):
        assert (folder / "samples" / "responses.html").exists()
        check_export(folder / "export" / "merged", model)
        said = answered(tmp_path / "infer", folder)
        assert said["status"] == "ok", said["reason"]

    if resumed:
        again = typed(folder, f"resume={folder}", *start, "trainer.max_steps=4")
        assert (again["status"], again["steps"]) == ("ok", 4), again["reason"]
    system, datamodule = load_system(folder, plugins=[REWARD])
    assert all(p.isfinite().all() for p in system.parameters()) and datamodule.vocabulary.size > 0


@pytest.mark.slow
def test_sft_and_ppo_go_on_from_an_own_pretrained_decoder(tmp_path: Path) -> None:
    """Of a decoder that is wider than its `base_width`, so that its export has what that multiplies in its weights."""
    wide = ("model.net.width=96", "model.net.base_width=48")
    assert typed(tmp_path / "lm", "model=lm", *wide, "trainer=cpu", *SHORT)["status"] == "ok"
    for model, words in (("sft", ("model/net=language_pretrained",)), ("ppo", ON_POLICY)):
        folder, path = tmp_path / model, f"model.net.path={tmp_path / 'lm'}"
        result = typed(folder, f"model={model}", path, "trainer=cpu", *words, *SHORT)
        assert (result["status"], result["steps"]) == ("ok", 3), result["reason"]
        check_export(folder / "export", model)


def answered(folder: Path, run: Path) -> dict:
    """result.json of infer.py on the export of a run."""
    words = (f"model={run}", "prompt_text=a good film", "sampling.max_new_tokens=4", f"hydra.run.dir={folder}")
    command = [sys.executable, "infer.py", *words]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=3 * SECONDS)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return json.loads((folder / "result.json").read_text())


def check_export(folder: Path, model: str) -> None:
    """What others read: plain transformers, and peft where there is an adapter."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([tokenizer("a good film")["input_ids"]])
    if (folder / "adapter_config.json").exists():
        from peft import AutoPeftModelForCausalLM

        net = AutoPeftModelForCausalLM.from_pretrained(folder)
        assert any(p.abs().sum() > 0 for name, p in net.named_parameters() if "lora_B" in name), "an empty adapter"
    else:
        net = (AutoModel if model == "reward" else AutoModelForCausalLM).from_pretrained(folder)
    with torch.no_grad():
        out = net(input_ids=ids)
    assert (out.last_hidden_state if model == "reward" else out.logits).isfinite().all()
