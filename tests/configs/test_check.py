"""Every kind of mistake in a config is found, all at once, with the nearest valid name."""

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from alignlab.configs import check as config
from alignlab.configs.command_line import inference_arguments
from alignlab.configs.explain import explain
from alignlab.configs.filling import filled
from alignlab.configs.roots import InferenceRoot
from alignlab.configs.signatures import NotFound, imported_signature, part_of, signature, signature_of
from alignlab.runs import resuming
from tiny_run import REPOSITORY

import pytest
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

Compose = Callable[..., DictConfig]


def problems(cfg: DictConfig) -> list[str]:
    with pytest.raises(config.ConfigError) as caught:
        config.check(cfg)
    return caught.value.problems


def test_a_sound_config_passes(composed: Compose) -> None:
    config.check(composed("model=clip"))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("+sed=1", ["sed: unknown key; did you mean seed?"]),
        ("+optim.lrr=1", ["optim.lrr: unknown key; did you mean lr?"]),
        ("+model.net.vision.dept=2", ["model.net.vision.dept: unknown key; did you mean depth?"]),
        ("+callbacks.mine.every=3", ["callbacks.mine: has no _target_"]),
        ("optim.schedule=cosin", ["optim.schedule: expects one of cosine", "got 'cosin'"]),
        ("trainer.max_steps=many", ["trainer.max_steps: expects int, got 'many'"]),
        ("trainer.max_steps=true", ["trainer.max_steps: expects int, got True"]),
        ("optim.betas=[0.9]", ["optim.betas: expects tuple[float, float]"]),
        ("optim.lr=???", ["optim.lr: has no value yet (???)"]),
        ("optim.lr=${nowhere}", ["optim.lr: can't be resolved"]),
        ("seed=zero", ["seed: expects int, got 'zero'"]),
        ("model._target_=os.system", ["model._target_: os.system is outside the allowed packages"]),
        ("model._target_=alignlab.methods.clip.ClipMethd", ["does not exist; did you mean ClipMethod?"]),
        ("model._target_=alignlab.method.clip.ClipMethod", ["alignlab.method.clip.ClipMethod does not exist"]),
        ("+model.vocabulary=3", ["model.vocabulary: is filled in by the run itself"]),
        ("~model.net", ["model.net: missing; alignlab.methods.clip.ClipMethod needs it"]),
        ("model.net=clip_tiny", ["model.net: expects a node with _target_"]),
    ],
)
def test_one_problem(composed: Compose, override: str, expected: list[str]) -> None:
    found = problems(composed("model=clip", override))
    assert len(found) == 1
    for text in expected:
        assert text in found[0]


def test_all_problems_at_once(composed: Compose) -> None:
    found = problems(composed("model=clip", "+sed=1", "+optim.lrr=1", "trainer.max_steps=many", "optim.schedule=cosin"))
    assert sorted(problem.split(":")[0] for problem in found) == [
        "optim.lrr",
        "optim.schedule",
        "sed",
        "trainer.max_steps",
    ]


def test_a_dropped_callback_is_fine(composed: Compose) -> None:
    config.check(composed("model=clip", "callbacks.curves=null", "logger.csv=null"))


def test_what_hydra_refuses_is_explained_whole(composed: Compose) -> None:
    overrides = ["model=clipp", "data=null", "optim.lrr=3", "modle=clip", "model/nett=x", "trainer.max_steps=many"]
    with pytest.raises((HydraException, ValueError)) as caught:
        composed(*overrides)
    found = explain(caught.value, overrides)
    assert found[0].startswith("model=clipp: no such choice; did you mean clip? (choices: ")
    assert found[1].startswith("data=null: no such choice (choices: ")
    assert "model/nett: unknown group; did you mean model/net?" in found
    assert "modle: unknown key; did you mean model?" in found
    assert any(line.startswith("optim.lrr: unknown key; did you mean lr?") for line in found)
    assert "trainer.max_steps: expects int, got 'many'" in found


def test_an_override_that_cannot_be_read(composed: Compose) -> None:
    with pytest.raises(HydraException) as caught:
        composed("optim.lr=[1")
    assert len(explain(caught.value, ["optim.lr=[1"])) == 1


def test_resumed_takes_the_saved_config(composed: Compose, tmp_path) -> None:
    saved = composed("model=clip", "optim.lr=0.5", "data.batch_size=4")
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(filled(saved), resolve=True))
    overrides = [f"resume={tmp_path}", "trainer=cpu", "optim.warmup_steps=7"]
    cfg = resuming.resumed(composed(*overrides), overrides)
    assert (cfg.optim.lr, cfg.data.batch_size, cfg.optim.warmup_steps, cfg.trainer.accelerator) == (0.5, 4, 7, "cpu")
    assert cfg.resume == str(tmp_path)
    with pytest.raises(config.ConfigError, match="holds no config"):
        resuming.resumed(composed("resume=nowhere"), ["resume=nowhere"])


def test_a_requeued_run_goes_on(composed: Compose, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").write_text(
        OmegaConf.to_yaml(filled(composed("model=clip", "optim.lr=0.5")), resolve=True)
    )
    monkeypatch.setenv("SLURM_NTASKS", "2")
    for restarts, checkpoint, resume in (("0", True, None), ("1", False, None), ("1", True, str(tmp_path))):
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        file = tmp_path / "checkpoints" / "last.ckpt"
        file.touch() if checkpoint else file.unlink()
        cfg = resuming.resumed(composed("model=clip"), ["model=clip"], tmp_path)
        assert (cfg.resume, cfg.optim.lr) == (resume, 0.5 if resume else composed("model=clip").optim.lr)


@pytest.mark.parametrize(
    "target",
    [
        "lightning.Trainer",
        "lightning.pytorch.loggers.TensorBoardLogger",
        "torch.optim.AdamW",
        "alignlab.losses.contrastive.InfoNce",
        "alignlab.models.clip.Clip",
        "alignlab.optim.adamw.adamw",
        "alignlab.callbacks.meters.curves.Curves",
        "alignlab.callbacks.keeping.checkpoint.Checkpoints",
        "alignlab.inference.backend.Sampling",
    ],
)
def test_signatures_from_source_equal_live_ones(target: str) -> None:
    read, live = signature(target).parameters, imported_signature(target).parameters
    empty = type(next(iter(live.values()))).empty if live else None
    assert [(p.name, p.kind, p.default is empty) for p in read.values()] == [
        (p.name, p.kind, p.default is empty) for p in live.values()
    ]


def test_a_signature_that_is_not_there() -> None:
    with pytest.raises(NotFound):
        signature("alignlab.nothing.here")


def test_help_and_errors_are_fast_and_without_torch() -> None:
    code = "import sys, runpy; sys.argv = ['train.py', *sys.argv[1:]]\ntry:\n    runpy.run_path('train.py', run_name='__main__')\n"
    code += "finally:\n    print('torch' in sys.modules, file=sys.stderr)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    helped = subprocess.run([sys.executable, "-c", code, "--help"], cwd=REPOSITORY, capture_output=True, text=True)
    assert "model: albef, albef_entailment, " in helped.stdout
    assert helped.stderr.strip() == "False"
    wrong = [sys.executable, "-c", code, "model=clip", "optim.lrr=1", "trainer.max_steps=many"]
    failed = subprocess.run(wrong, cwd=REPOSITORY, capture_output=True, text=True)
    assert failed.returncode == 2
    assert failed.stderr.splitlines()[-1] == "False"
    assert "Traceback" not in failed.stderr
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    assert seconds < 7, "of computing, for both; about 1 without torch, 9 with it"


def test_inference_has_its_own_root(composed: Compose) -> None:
    words = ["model=outputs/sft", "task=score", "batch_size=4"]
    assert inference_arguments(words) == ["model_path=outputs/sft", "task=score", "batch_size=4"]
    config.check(composed(*inference_arguments(words), program="infer"), root=InferenceRoot)
    wrong = composed(
        "+bach_size=3", "dtype=float16", "sampling.stop=x", "task.overlap=no", "task=score", program="infer"
    )
    with pytest.raises(config.ConfigError) as caught:
        config.check(wrong, root=InferenceRoot)
    assert [problem.split(";")[0] for problem in caught.value.problems] == [
        "model_path: has no value yet (???)",
        "dtype: expects one of float32, bfloat16, got 'float16'",
        "bach_size: unknown key",
        "task.overlap: expects float, got 'no'",
        "sampling.stop: expects tuple[str, ...], got 'x'",
    ]


def test_mistakes_on_a_command_line_of_inference(composed: Compose) -> None:
    words = ["backend=compild", "task=scor", "model_path=x", "smapling=greedy"]
    with pytest.raises(HydraException) as caught:
        composed(*words, program="infer")
    found = explain(caught.value, words, program="infer", root=InferenceRoot)
    assert found[0].startswith("backend=compild: no such choice; did you mean compiled?")
    assert found[1].startswith("task=scor: no such choice; did you mean score?")
    assert found[2] == "smapling: unknown key; did you mean sampling?"


@pytest.mark.parametrize(
    "word", ["model=null", "model/peft=null", "callbacks=null", "experiment=null", "debug=null", "trainer=null"]
)
def test_a_group_set_to_null_is_one_line(composed: Compose, word: str) -> None:
    words = ["model=sft", word] if "/" in word else [word]
    with pytest.raises((HydraException, ValueError)) as caught:
        composed(*words)
    found = explain(caught.value, words)
    assert len(found) == 1 and found[0].startswith(word) and "\n" not in found[0]


def test_settings_stand_for_what_the_base_class_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "family.py").write_text(
        "class Parent:\n    def __init__(self, net, *, beta: float = 1.0, kind: str = 'a', seed: int = 0): ...\n"
        "class Child(Parent):\n    def __init__(self, gamma: float = 2.0, **settings):\n        super().__init__(kind='b', **settings)\n"
        "class Grandchild(Child):\n    def __init__(self, *, beta: float = 3.0, **settings):\n        super().__init__(beta=beta, **settings)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert str(signature("family.Child")) == "(gamma: float = 2.0, *, net: Any, beta: float = 1.0, seed: int = 0)"
    assert list(signature("family.Grandchild").parameters) == ["beta", "gamma", "net", "seed"]


def test_settings_stand_for_what_a_part_takes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "whole.py").write_text(
        "class Scenes:\n    def __init__(self, size: int, seed: int = 3): ...\n"
        "class Pairs:\n    def __init__(self, size: int, *, number: int = 5, **settings):\n        self.scenes = Scenes(size, **settings)\n"
        "class Module:\n    def __init__(self, source: str, *, size: int = 48, **of_source): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert str(signature("whole.Pairs")) == "(size: int, *, number: int = 5, seed: int = 3)"
    assert part_of("whole.Pairs") is None and part_of("whole.Module") == "source"
    wanted = "(source: str, *, size: int = 48, number: int = 5, seed: int = 3)"
    assert str(signature_of({"_target_": "whole.Module", "source": "whole.Pairs"})) == wanted


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("+data.max_sprite=3", "data.max_sprite: unknown key; did you mean max_sprites?"),
        ("data.max_sprites=many", "data.max_sprites: expects int, got 'many'"),
        (
            "data.source=alignlab.data.emoji.scene_pairs.EmojiScenePair",
            "data.source: alignlab.data.emoji.scene_pairs.EmojiScenePair does not exist",
        ),
        ("data.source=os.system", "data.source: os.system is outside the allowed packages"),
    ],
)
def test_keys_of_a_data_set_are_checked_beside_those_of_its_module(composed: Compose, word: str, problem: str) -> None:
    with pytest.raises(config.ConfigError) as caught:
        config.check(composed(word))
    assert any(line.startswith(problem) for line in caught.value.problems), caught.value.problems
