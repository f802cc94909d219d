"""What can be a study, and what is refused in one line."""

from typing import Any

from alignlab.studies.design.declaration import Study, declared
from alignlab.studies.design.parameters import parameter, word

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

RATE = {"low": "1e-4", "high": 1e-2, "scale": "log"}  # YAML takes 1e-4 for a text


def study(**changes: Any) -> Study:
    given = {
        "goal": "Does a teacher help?",
        "metric": {"name": "val/loss", "mode": "min"},
        "scientific": {"model.teacher": [True, False]},
        "nuisance": {"optim": {"lr": RATE}},
        "fixed": {"model": "albef"},
        "trials": 8,
    }
    return declared({key: value for key, value in (given | changes).items() if value != "gone"})


def test_nested_and_dotted_keys_are_the_same() -> None:
    assert study(nuisance={"optim.lr": RATE}) == study()
    assert [p.key for p in study().parameters] == ["model.teacher", "optim.lr"]
    assert study().overrides({"model.teacher": True, "optim.lr": 1e-3}) == [
        "model=albef",
        "model.teacher=true",
        "optim.lr=0.001",
    ]


def test_the_same_name_under_two_conditions_is_two_parameters() -> None:
    this = study(
        scientific={"optim": ["adamw", "muon"]},
        nuisance="gone",
        conditional=[
            {"when": {"optim": "adamw"}, "nuisance": {"optim.lr": RATE}},
            {"when": {"optim": "muon"}, "nuisance": {"optim.lr": {"low": 1e-2, "high": 1, "scale": "log"}}},
        ],
    )
    assert [(p.key, p.high) for p in this.parameters[1:]] == [("optim.lr", 1e-2), ("optim.lr", 1)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"goal": " "}, "goal is missing"),
        ({"samler": "halton"}, "unknown key samler; did you mean sampler?"),
        ({"sampler": "tpee"}, "sampler=tpee is none of halton"),
        ({"trials": 0}, "trials=0 must be a whole number of at least 1"),
        ({"metric": "gone"}, "metric is missing"),
        ({"metric": {"name": "val/loss"}}, "say whether val/loss is best min or max"),
        ({"metric": {"name": "a", "mode": "min", "reduce": "at_step"}}, "at_step with step"),
        ({"scientific": "gone", "nuisance": "gone"}, "nothing to try"),
        ({"nuisance": {"optim.lr": {"low": 1, "high": 1e-3, "scale": "log"}}}, "low=1 must be below high=0.001"),
        ({"nuisance": {"optim.lr": {"low": 0, "high": 1, "scale": "log"}}}, "low=0 has no logarithm"),
        ({"nuisance": {"optim.lr": {"low": 1e-3, "high": 1}}}, "say scale: log or scale: linear"),
        ({"nuisance": {"optim.lr": {"low": "x", "high": 1, "scale": "log"}}}, "must be finite numbers"),
        ({"nuisance": {"optim.lr": [1e-3]}}, "needs two or more"),
        ({"nuisance": {"optim.lr": {**RATE, "step": 3}}}, "unknown step"),
        ({"nuisance": {"trainer.max_steps": {"low": 1, "high": 9, "scale": "log"}}}, "max_steps is searched, but more"),
        ({"nuisance": {"data.batch_size": [8, 16]}}, "allow: [data.batch_size]"),
        ({"nuisance": {"model.teacher": [True, False]}}, "model.teacher stands there twice"),
        ({"fixed": {"optim.lr": 1e-3}}, "searched and fixed"),
        ({"conditional": [{"when": {"optim": "x"}, "nuisance": {"a.b": [1, 2]}}]}, "optim has no values"),
        ({"conditional": [{"when": {"model": "clip"}, "nuisance": {"a.b": [1, 2]}}]}, "model has albef"),
        ({"sampler": "grid"}, "a grid needs points"),
        ({"infeasible": {"train/loss": {"over": 3}}}, "above: or below:"),
    ],
)
def test_a_line_says_why_it_is_no_study(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as refused:
        study(**changes)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_what_is_allowed_is_searched() -> None:
    study(nuisance={"data.batch_size": [8, 16]}, allow=["data.batch_size"])
    with pytest.raises(ValueError, match=r"optim\.lr is searched; leave it out of the command line"):
        declared({"goal": "x", "metric": {"name": "a", "mode": "max"}, "nuisance": {"optim.lr": RATE}}, ["optim.lr=1"])


@pytest.mark.parametrize("value", [None, True, 3, 1e-5, "adamw", "it's", "a b=c", "true", [1, "x"], {"a": 1}, ""])
def test_values_survive_hydras_grammar(value: Any) -> None:
    (override,) = OverridesParser.create().parse_overrides([word("a.b", value)])
    assert override.value() == value


def test_whole_numbers_and_places() -> None:
    layers = parameter("net.layers", {"low": 1, "high": 4, "scale": "linear", "integer": True}, "nuisance")
    assert {layers.at(place / 100) for place in range(100)} == {1, 2, 3, 4}
    rate = parameter("optim.lr", RATE, "nuisance")
    assert (rate.at(0.5), rate.value(1.5)) == (1e-3, 0.1) and rate.place(1e-3) == pytest.approx(0.5)
