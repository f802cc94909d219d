"""lm-evaluation-harness by our backends: the numbers of its own `hf` model, on tasks made here."""

import importlib.util
import json
from pathlib import Path

from alignlab.inference.backends.compiled import CompiledBackend
from alignlab.tasks.harness.harness import LmEval
from language_job import job_of, printed, subject_of

import pytest

THERE = importlib.util.find_spec("lm_eval") is not None

TASKS = {
    "choose": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "label",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "say": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{choices[label]}}",
        "generation_kwargs": {"until": ["e"], "max_gen_toks": 12, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    },
    "end": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{choices[label]}}",
        "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
    },
    "read": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    },
}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of tasks over twelve rows; the longest texts don't fit into the model's context of 64 bytes."""
    words = "Red blue green one two three four dog cat bird fish house".split()
    rows = [
        {"question": f"{word} " * (1 + 3 * i), "choices": [" yes", " not so", f" {word}"], "label": i % 3}
        for i, word in enumerate(words)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name, settings in TASKS.items():
        files = {"data_files": {"test": str(tmp_path / "rows.jsonl")}}
        task = {"task": name, "dataset_path": "json", "dataset_kwargs": files, "test_split": "test", **settings}
        (tmp_path / f"{name}.yaml").write_text(json.dumps(task))
    return tmp_path


@pytest.mark.skipif(not THERE, reason="the extra lm_eval isn't installed")
def test_the_numbers_are_those_of_the_hf_model(language_model: Path, own: Path) -> None:
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    job = job_of(own / "run")
    ours = LmEval(list(TASKS), include_path=str(own)).run(subject_of(language_model, CompiledBackend()), job)
    theirs = lm_eval.simple_evaluate(
        # one at a time: four windows of one text, as of the last row, are counted otherwise by 0.4.13 than each alone
        model=HFLM(pretrained=str(language_model), max_length=63, device="cpu", batch_size=1),
        tasks=list(TASKS),
        task_manager=TaskManager(include_path=str(own)),
    )
    wanted = {
        f"{task}/{key.removesuffix(',none')}": value
        for task, numbers in theirs["results"].items()
        for key, value in numbers.items()
        if key.endswith(",none") and "_stderr" not in key
    }
    assert len(wanted) == 7 and set(ours) == set(wanted)
    assert ours == pytest.approx(wanted, rel=1e-5)
    assert "word_perplexity" in printed(job)
    rows = {row["id"]: row for row in job.predictions.rows.values()}
    assert len(rows) == 4 * 12
    for sample in theirs["samples"]["say"]:
        assert rows[f"say-{sample['doc_id']}-none"]["reply"] == sample["filtered_resps"][0]
    assert json.loads((own / "run" / "lm_eval.json").read_text())["results"]["choose"]["acc,none"] == ours["choose/acc"]


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"missing: pip install 'alignlab\[lm_eval\]'"):
        LmEval(["arc_easy"])


@pytest.mark.skipif(not THERE, reason="the extra lm_eval isn't installed")
def test_mistakes(language_model: Path, own: Path) -> None:
    with pytest.raises(ValueError, match="the harness knows no chose"):
        LmEval(["chose"], include_path=str(own)).run(subject_of(language_model), job_of(own / "run"))
    with pytest.raises(ValueError, match="tasks is empty"):
        LmEval([])
