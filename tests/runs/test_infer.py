"""The door of inference: a run directory whatever happens, one line for what a user can mend, and the program itself."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from alignlab.configs.command_line import inference_arguments
from alignlab.configs.roots import InferenceRoot
from alignlab.runs import infer as serve
from alignlab.runs.inference import opening
from alignlab.runs.resuming import resumed
from served_model import write_language_model, write_reward_model
from tiny_run import REPOSITORY

import pytest
from omegaconf import DictConfig

Prepare = Callable[..., DictConfig]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny language model."""
    return write_language_model(tmp_path_factory.mktemp("model"), positions=64)


@pytest.fixture
def infer(prepared: Prepare) -> Callable[..., dict]:
    """`infer(run_dir, *overrides)`: the run's result.json; raises what the door raises."""

    def run(run_dir: Path, *overrides: str) -> dict:
        words = inference_arguments(overrides)
        serve.infer(resumed(prepared(run_dir, *words, program="infer"), words, root=InferenceRoot))
        return result_of(run_dir)

    return run


def result_of(run_dir: Path) -> dict:
    return json.loads((run_dir / "result.json").read_text())


def rows_of(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "predictions.jsonl").read_text().splitlines()]


def test_a_run_directory(infer: Callable[..., dict], model: Path, tmp_path: Path, capsys) -> None:
    words = (f"model={model}", "prompt_text=Hello", "sampling.max_new_tokens=6", "backend=compiled", "seed=3")
    result = infer(tmp_path / "a", *words)
    assert (result["status"], result["steps"], result["seed"]) == ("ok", 1, 3)
    assert result["objective"] == result["metrics"]["tokens_per_second"] > 0
    assert result["peak_memory_bytes"] > 50e6 and result["seconds"] > 0
    (row,) = rows_of(tmp_path / "a")
    assert 0 < row["tokens"] <= 6
    assert {file.name for file in (tmp_path / "a").iterdir()} == {
        *("config.yaml", "predictions.jsonl", "result.json", "infer.log"),
    }
    assert str(model) in (tmp_path / "a" / "config.yaml").read_text()
    assert "Hello" in capsys.readouterr().out
    infer(tmp_path / "b", *words)
    assert rows_of(tmp_path / "b") == [row]


def test_a_folder_of_runs_is_recorded_as_the_run_that_answered(
    infer: Callable[..., dict], model: Path, tmp_path: Path
) -> None:
    """Else a resumed run would go on with whatever is newest then."""
    (tmp_path / "sft" / "first").mkdir(parents=True)
    (tmp_path / "sft" / "first" / "export").symlink_to(model)
    infer(tmp_path / "run", f"model={tmp_path}/sft", "prompt_text=a", "sampling.max_new_tokens=2", "backend=compiled")
    assert f"model_path: {tmp_path}/sft/first\n" in (tmp_path / "run" / "config.yaml").read_text()


def test_a_reward_model_scores(infer: Callable[..., dict], tmp_path: Path) -> None:
    """It printed a perplexity."""
    folder = write_reward_model(tmp_path / "model")
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "chosen": " b", "rejected": " c"}\n')
    result = infer(tmp_path / "run", f"model={folder}", "task=score", f"input={tmp_path}/a.jsonl")
    assert set(result["metrics"]) == {"accuracy", "mean_reward", "failed"} and result["steps"] == 2
    assert result["objective"] == result["metrics"]["accuracy"]
    assert {"reward", "normalised"} <= set(rows_of(tmp_path / "run")[0])
    with pytest.raises(ValueError, match="is a reward model, which takes none"):
        adapter = tmp_path / "adapter"
        adapter.mkdir()
        infer(tmp_path / "other", f"model={folder}", "task=score", "prompt_text=a", f"adapter={adapter}")


def test_every_technique_runs_on_every_config(infer: Callable[..., dict], model: Path, tmp_path: Path) -> None:
    for choice in sorted(file.stem for file in (REPOSITORY / "conf" / "prompt").glob("*.yaml")):
        words = (f"prompt={choice}", "sampling=varied", "sampling.max_new_tokens=30", "backend=scripted", "model=null")
        result = infer(tmp_path / choice, *words, "backend.answers={a: 'It is 5.'}", "prompt_text='2 + 3, say?'")
        assert result["status"] == "ok" and rows_of(tmp_path / choice)[0]["answer"] is not None, choice


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=/no/such/folder"], "model=/no/such/folder: there is no such folder"),
        (["model={empty}"], "neither config.json nor adapter_config.json is there"),
        (["adapter=/no/adapter"], "adapter=/no/adapter: there is no adapter_config.json"),
        (["model=null"], "model=null: name a hub id"),
        (["prompt_text='{long}'"], "context of 64"),
        (["prompt_text=a", "template=chat"], "this model has no chat template"),
        (["prompt=self_consistency"], "use sampling=varied"),
        (["sampling.temperature=-1", "prompt_text=a"], "temperature"),
        (["sampling.temperature=1e-38"], "sampling.temperature=1e-38 must be 0 (greedy) or at least 1e-30"),
        (["sampling.stop=['']"], "without the empty text"),
        (["batch_size=0"], "batch_size is 0"),
        (["prompt_text=null", "input=nowhere.txt"], "input=nowhere.txt: there is no such file"),
        (["prompt=few_shot", "prompt.number=9"], "prompt.number=9 must lie in 1..3"),
        (["task=match", "model={model}"], "is no run directory"),
        (["model={reward}"], "is a reward model: it answers nothing, task=score gives its rewards"),
    ],
)
def test_bad_input(infer: Callable[..., dict], model: Path, tmp_path: Path, overrides: list[str], message: str) -> None:
    (tmp_path / "empty").mkdir()
    words = [f"model={model}", "prompt_text=Hello", "backend=compiled"]
    reward = write_reward_model(tmp_path / "reward") if "model={reward}" in overrides else None
    words += [word.format(empty=tmp_path / "empty", long="x" * 90, model=model, reward=reward) for word in overrides]
    names = [word.split("=")[0] for word in words]
    words = [word for n, word in enumerate(words) if names[n] not in names[n + 1 :]]
    with pytest.raises(ValueError) as caught:
        infer(tmp_path / "run", *words)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    result = result_of(tmp_path / "run")
    assert (result["status"], message in result["reason"]) == ("failed", True)
    assert "Traceback" in (tmp_path / "run" / "infer.log").read_text()


def test_an_unavailable_backend(infer: Callable[..., dict], model: Path, tmp_path: Path, monkeypatch) -> None:
    from alignlab.inference.backend import Availability
    from alignlab.inference.backends.compiled import CompiledBackend

    monkeypatch.setattr(CompiledBackend, "available", lambda self: Availability(False, "no kernel"))
    with pytest.raises(opening.Unavailable, match="backend=compiled can't run here: no kernel"):
        infer(tmp_path, f"model={model}", "backend=compiled", "prompt_text=a")
    assert result_of(tmp_path)["reason"].startswith("Unavailable: ")


def test_help_and_errors_without_torch(tmp_path: Path) -> None:
    code = "import sys, runpy; sys.argv = ['infer.py', *sys.argv[1:]]\ntry:\n    runpy.run_path('infer.py', run_name='__main__')\n"
    code += "finally:\n    print('torch' in sys.modules, file=sys.stderr)"
    helped = subprocess.run([sys.executable, "-c", code, "--help"], cwd=REPOSITORY, capture_output=True, text=True)
    assert "task: answer, benchmark, best_of_n, chat, classify" in helped.stdout and helped.stderr.strip() == "False"
    wrong = [sys.executable, "-c", code, "model=x", "dtype=float16", "sampling.top=1", f"output={tmp_path}"]
    failed = subprocess.run(wrong, cwd=REPOSITORY, capture_output=True, text=True)
    assert (failed.returncode, failed.stderr.splitlines()[-1]) == (2, "False")
    assert failed.stderr.startswith("error: ") and "Traceback" not in failed.stderr


@pytest.mark.distributed
def test_an_error_on_the_command_line(tmp_path: Path) -> None:
    words = ["model=null", "backend=scripted", "prompt_text=question", f"output={tmp_path}/run"]
    failed = subprocess.run([sys.executable, "infer.py", *words], cwd=REPOSITORY, capture_output=True, text=True)
    assert failed.returncode == 2 and "Traceback" not in failed.stderr
    message, where = failed.stderr.splitlines()
    assert message == "error: the script has no answer to 'question'"
    assert where == f"The traceback is in {tmp_path}/run/infer.log"


@pytest.mark.distributed
def test_ctrl_c_loses_nothing_and_resume_goes_on(infer: Callable[..., dict], model: Path, tmp_path: Path) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    words = [f"model={model}", "backend=compiled", "sampling.max_new_tokens=4", f"output={tmp_path}/run"]
    running = subprocess.Popen([sys.executable, "infer.py", *words], cwd=REPOSITORY, text=True, **pipes)
    running.stdin.write("\n".join(f"prompt {n}" for n in range(4000)))
    running.stdin.close()
    running.stdin = None
    file, deadline = tmp_path / "run" / "predictions.jsonl", time.monotonic() + 120
    while not (file.exists() and file.read_text().count("\n") >= 20) and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert (running.returncode, errors.splitlines()[-1]) == (130, "error: interrupted by SIGINT")
    assert "Traceback" not in errors
    result, rows = result_of(tmp_path / "run"), rows_of(tmp_path / "run")
    assert (result["status"], result["steps"]) == ("interrupted", len(rows)) and 20 <= len(rows) < 4000
    with pytest.raises(ValueError, match="go on with resume="):
        infer(tmp_path / "run", *words[:3], "prompt_text=a")
    assert result_of(tmp_path / "run") == result, "another run is left as it is"
    count = max(int(row["id"]) for row in rows) + 6  # enough to go on with
    (tmp_path / "prompts.txt").write_text("\n".join(f"prompt {n}" for n in range(count)))
    infer(tmp_path / "run", f"resume={tmp_path}/run", f"input={tmp_path}/prompts.txt")
    later = rows_of(tmp_path / "run")
    assert [row["id"] for row in later] == [str(n) for n in range(count)]
    by_id = {row["id"]: row for row in later}
    assert all(by_id[row["id"]] == row for row in rows)


@pytest.mark.parametrize(
    ("words", "size"),
    [((), 8), (("backend.batch_size=5",), 5), (("batch_size=3",), 3), (("backend=scripted", "model=null"), 8)],
)
def test_one_place_says_how_many_run_together(
    prepared: Prepare, model: Path, tmp_path: Path, words: tuple[str, ...], size: int
) -> None:
    words = inference_arguments(("backend=compiled", f"model={model}", *words))
    backend, subject = opening.load_backend(
        resumed(prepared(tmp_path, *words, program="infer"), words, root=InferenceRoot)
    )
    assert subject.asker.batch_size == size == getattr(backend, "batch_size", size)
