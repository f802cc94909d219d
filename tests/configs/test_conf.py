"""Every file under conf/ composes and passes the check."""

from collections.abc import Callable
from pathlib import Path

from alignlab.configs import check as config
from alignlab.configs.roots import InferenceRoot, Root
from alignlab.runs import chain
from alignlab.studies.design import points
from alignlab.studies.design.declaration import declared
from tiny_run import REPOSITORY

import pytest
import yaml
from omegaconf import DictConfig

CONF = REPOSITORY / "conf"
CHOICES = sorted(file.relative_to(CONF).with_suffix("") for file in CONF.rglob("*.yaml") if file.parent != CONF)
PROGRAMS = {"backend", "prompt", "task", "sampling"}  # groups of infer.yaml
MODELS = sorted(file.stem for file in (CONF / "model").glob("*.yaml"))


def problems(cfg: DictConfig, root: type = Root) -> list[str]:
    """Problems but for values that only the user can know."""
    try:
        config.check(cfg, root=root)
    except config.ConfigError as error:
        return [problem for problem in error.problems if "has no value yet (???)" not in problem]
    return []


def related(choice: Path) -> list[str]:
    """Models that a net or loss may belong to, the one with the longest common name first."""
    return sorted(MODELS, key=lambda model: -len(model) if choice.name.startswith(model.split("_")[0]) else 0)


def naturally(choice: Path) -> list[str]:
    """Models, those first whose own data these are, then language models."""
    texts = {model: (CONF / "model" / f"{model}.yaml").read_text() for model in MODELS}
    return sorted(
        MODELS, key=lambda model: (f"data: {choice.name}\n" not in texts[model], "movie_" not in texts[model])
    )


@pytest.mark.parametrize("choice", [c for c in CHOICES if c.parts[0] not in (*PROGRAMS, "chain", "assets")], ids=str)
def test_it_composes_and_passes(composed: Callable[..., DictConfig], choice: Path) -> None:
    override = f"{choice.parent}={choice.name}"
    if choice.parent.parts[0] == "model" and len(choice.parts) > 2:  # a part of a model: at least one model takes it
        found = []
        for model in related(choice):
            found = (
                problems(composed(f"model={model}", override))
                if takes(model, choice.parts[1])
                else found or ["no model"]
            )
            if not found:
                return
        pytest.fail(f"no model takes {choice}: {found}")
    found = problems(composed(override))
    for model in naturally(choice) if choice.parts[0] == "data" else ():  # texts need a language model
        found = found and problems(composed(f"model={model}", override))
    assert found == []


@pytest.mark.parametrize("choice", [c for c in CHOICES if c.parts[0] in PROGRAMS], ids=str)
def test_it_composes_and_passes_for_inference(composed: Callable[..., DictConfig], choice: Path) -> None:
    cfg = composed(f"{choice.parent}={choice.name}", program="infer")
    assert problems(cfg, InferenceRoot) == []


@pytest.mark.parametrize("choice", [c for c in CHOICES if c.parts[0] == "chain"], ids=str)
def test_all_stages_of_a_chain_compose_and_pass(composed: Callable[..., DictConfig], choice: Path) -> None:
    chain.checked(composed(f"chain={choice.name}", program="chain"), Path("outputs/x"))


@pytest.mark.parametrize("choice", [c for c in CHOICES if c.parts[0] == "study"], ids=str)
def test_a_trial_of_every_setting_of_a_study_composes_and_passes(
    composed: Callable[..., DictConfig], choice: Path
) -> None:
    given = yaml.safe_load((CONF / choice).with_suffix(".yaml").read_text())
    study = declared({key: value for key, value in given.items() if key != "defaults"})
    for number in range(len(study.settings)):
        assert problems(composed(*study.overrides(points.point(study, number)))) == []


def takes(model: str, part: str) -> bool:
    """Whether a model's defaults list has a group for this part."""
    return f"- {part}:" in (CONF / "model" / f"{model}.yaml").read_text()


def test_values_are_plain() -> None:
    for choice in CHOICES:
        text = (CONF / choice).with_suffix(".yaml").read_text()
        assert "\t" not in text and text.endswith("\n"), choice
