"""Data of another kind than the method learns from, and loggers whose package is missing, are one line."""

import importlib.util
import json
import pkgutil
import re
from pathlib import Path

import task_lists
from alignlab.data.image_text.modules import PairDataModule
from alignlab.data.language.modules import LanguageDataModule
from alignlab.data.picture_tasks.modules import JudgedDataModule, QuestionDataModule
from alignlab.runs.building import build_trainer
from alignlab.runs.errors import cause
from alignlab.runs.fitting import check_kind, check_net
from tiny_run import REPOSITORY

import pytest
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

LEARNS = {
    "sft.SftMethod": "texts to learn",
    "dpo.DpoMethod": "pairs",
    "simpo.SimpoMethod": "pairs",
    "orpo.OrpoMethod": "pairs",
    "kto.KtoMethod": "texts with labels",
    "reward.RewardMethod": "pairs",
    "ppo.PpoMethod": "prompts",
    "grpo.GrpoMethod": "prompts",
    "clip.ClipMethod": "pictures with captions",
    "albef.AlbefMethod": "pictures with captions",
    "coca.CocaMethod": "pictures with captions",
    "albef_entailment.AlbefEntailmentMethod": "texts about pictures with labels",
    "albef_nlvr2.AlbefNlvr2Method": "texts about pictures with labels",
    "albef_vqa.AlbefVqaMethod": "questions about pictures",
    "clip_entailment.ClipEntailmentMethod": "texts about pictures with labels",
    "clip_vqa.ClipVqaMethod": "questions about pictures",
}
KINDS = {"texts to learn": "sft", "pairs": "preference", "texts with labels": "label", "prompts": "prompt"}


def test_data_of_another_kind_are_refused_by_name(tmp_path: Path) -> None:
    """model=dpo data=jsonl was an AttributeError in the first step."""
    rows = ({"prompt": f"q{n}", "completion": "a", "chosen": "b", "rejected": "c", "label": n % 2} for n in range(20))
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    own, settings = "alignlab.data.language.own_rows.OwnRows", {"vocab_size": 300, "val_share": 0.3}
    data = {
        name: LanguageDataModule(own, path=str(tmp_path / "rows.jsonl"), kind=kind, **settings)
        for name, kind in KINDS.items()
    }
    for module in data.values():
        module.setup("fit")
    data["pictures with captions"] = PairDataModule("alignlab.data.emoji.scene_pairs.EmojiScenePairs")
    data["texts about pictures with labels"] = JudgedDataModule(
        "alignlab.data.picture_tasks.scenes_entailment.SceneEntailment"
    )
    data["questions about pictures"] = QuestionDataModule("alignlab.data.picture_tasks.scenes_questions.SceneQuestions")
    for method, wanted in LEARNS.items():
        model = OmegaConf.create({"_target_": f"alignlab.methods.{method}"})
        for kind, module in data.items():
            if kind == wanted:
                check_kind(model, module)
                continue
            with pytest.raises(
                ValueError, match=f"^data: these are {kind}.*{method.partition('.')[2]} learns from {wanted}"
            ):
                check_kind(model, module)


def test_labels_and_pictures_that_a_head_has_no_room_for(tmp_path: Path) -> None:
    """Labels beyond the classes were an IndexError in the first step; of two pictures the second wasn't looked at."""
    for n in range(8):
        task_lists.picture(tmp_path / f"{n}.png", n)
    head = "image,text,label,split\n"
    rows = [f"{n}.png,text {n},class {n % 4},{'val' if n > 3 else ''}" for n in range(8)]
    (tmp_path / "rows.csv").write_text(head + "\n".join(rows))
    (tmp_path / "two.csv").write_text(
        "left,right,text,label\n" + "\n".join(f"{n}.png,0.png,a,{n % 2}" for n in range(8))
    )
    own = "alignlab.data.picture_tasks.own_judged.OwnJudged"
    four = JudgedDataModule(own, annotations=str(tmp_path / "rows.csv"), image_size=32)
    two = JudgedDataModule(own, annotations=str(tmp_path / "two.csv"), image_size=32, val_share=0.4)
    for module in (four, two):
        module.setup("fit")
    entailment = {"_target_": "alignlab.methods.albef_entailment.AlbefEntailmentMethod"}
    with pytest.raises(ValueError, match=r"^model.classes is 3, but the data have 4 labels: .*; set model.classes=4$"):
        check_kind(OmegaConf.create(entailment), four)
    check_kind(OmegaConf.create(entailment | {"classes": 4}), four)
    with pytest.raises(ValueError, match="rows have 2 pictures each, but AlbefEntailmentMethod looks at 1"):
        check_kind(OmegaConf.create(entailment), two)
    check_kind(OmegaConf.create({"_target_": "alignlab.methods.albef_nlvr2.AlbefNlvr2Method"}), two)
    without_fusion = {"_target_": "alignlab.methods.clip_entailment.ClipEntailmentMethod"}
    with pytest.raises(ValueError, match="rows have 2 pictures each, but ClipEntailmentMethod looks at 1"):
        check_kind(OmegaConf.create(without_fusion), two)
    check_kind(OmegaConf.create(without_fusion | {"pictures": 2}), two)
    scenes = "alignlab.data.picture_tasks.scenes_{}"
    for name, seen in (("entailment.SceneEntailment", 1), ("nlvr2.SceneComparisons", 2)):
        assert pkgutil.resolve_name(scenes.format(name)).pictures_a_row == seen


MISFITS = {
    ("albef_vqa", "clip_tiny"): "Clip, but AlbefVqaMethod trains Albef: take model/net=albef_tiny or model=clip_vqa",
    ("albef_nlvr2", "clip_vit_b16"): "Clip, but AlbefNlvr2Method trains Albef: take model/net=albef_tiny",
    ("clip_entailment", "albef_tiny"): "take model/net=clip_tiny or model=albef_entailment",
    ("albef", "siglip_tiny"): "take model/net=albef_tiny or model=clip",
    ("clip", "albef_tiny"): "take model/net=clip_tiny or model=albef",
    ("coca", "clip_tiny"): "take model/net=coca_tiny or model=clip",
    ("albef", "llama_tiny"): "PreTrainedModel, but AlbefMethod trains Albef: take model/net=albef_tiny",
}


def read_group(folder: Path) -> dict[str, dict]:
    """A group's files as they stand; the target of a preset is that of what it begins with."""
    read = {file.stem: OmegaConf.to_container(OmegaConf.load(file)) for file in folder.glob("*.yaml")}
    for content in read.values():
        content.setdefault("_target_", read.get(str(content.get("defaults", [""])[0]), {}).get("_target_"))
    return read


def test_a_net_of_another_kind_is_refused_by_name() -> None:
    """model=albef_vqa model/net=clip_tiny was an AttributeError; all nets that configs choose fit."""
    chosen, nets = (read_group(REPOSITORY / "conf" / group) for group in ("model", "model/net"))
    given = [
        (name, group) for name, model in chosen.items() for group in model["defaults"] if not isinstance(group, str)
    ]
    fitting = {(name, group["net"]) for name, group in given if "net" in group}
    assert {("clip_vqa", "clip_tiny"), ("sft", "llama_tiny")} <= fitting
    for method, net in {*fitting, *MISFITS}:
        model = OmegaConf.create({"_target_": chosen[method]["_target_"], "net": {"_target_": nets[net]["_target_"]}})
        if (method, net) in MISFITS:
            with pytest.raises(ValueError, match=f"^model.net: this is .*{re.escape(MISFITS[method, net])}$"):
                check_net(model)
        else:
            check_net(model)
    check_net(OmegaConf.create({"_target_": chosen["clip"]["_target_"], "net": {"_target_": "torch.nn.Linear"}}))


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is not None, reason="tensorboard is installed")
def test_a_logger_without_its_package(composed, tmp_path: Path) -> None:
    cfg = composed("logger=tensorboard", "trainer=cpu", "callbacks=default")
    with pytest.raises(InstantiationException) as caught:
        build_trainer(cfg, tmp_path)
    found = cause(caught.value, cfg)
    assert type(found) is ValueError and "\n" not in str(found)
    assert str(found).startswith("logger.tensorboard: ") and str(found).endswith("pip install 'alignlab[tensorboard]'")
