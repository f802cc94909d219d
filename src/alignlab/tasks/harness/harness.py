"""`task=lm_eval`: the tasks of EleutherAI's lm-evaluation-harness, answered by any backend."""

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alignlab.files.writing import write_text
from alignlab.tasks.job import Job, Subject

FILE = "lm_eval.json"


class LmEval:
    """Runs tasks of the harness and keeps what it says of each, and each sample.

    Args:
        tasks: names of tasks, or of groups.
        limit: samples of each task; None: all.
        num_fewshot: examples before each question; None: what each task says.
        include_path: folder with tasks of one's own, in the harness's YAML.
        apply_chat_template: ask as a chat, by the model's own template.

    Raises:
        ValueError: no task, or the extra isn't installed.
    """

    needs = "backend"

    def __init__(
        self,
        tasks: Sequence[str],
        limit: int | None = None,
        num_fewshot: int | None = None,
        include_path: str | None = None,
        apply_chat_template: bool = False,
    ) -> None:
        if importlib.util.find_spec("lm_eval") is None:
            raise ValueError("lm-evaluation-harness is missing: pip install 'alignlab[lm_eval]'")
        if not tasks:
            raise ValueError("tasks is empty: name at least one task of the harness")
        self.tasks, self.limit, self.num_fewshot = list(tasks), limit, num_fewshot
        self.include_path, self.apply_chat_template = include_path, apply_chat_template

    def run(self, subject: Subject, job: Job) -> dict[str, float]:
        """Raises ValueError for a task that the harness doesn't know."""
        import lm_eval
        from lm_eval.tasks import TaskManager

        from alignlab.tasks.harness.served_lm import ServedLm

        known = TaskManager(include_path=self.include_path)
        if unknown := [name for name in self.tasks if not known.match_tasks([name])]:
            raise ValueError(f"tasks: the harness knows no {', '.join(unknown)}; see `lm-eval ls tasks`")
        found = lm_eval.simple_evaluate(
            model=ServedLm(subject, job.seed),
            tasks=self.tasks,
            task_manager=known,
            limit=self.limit,
            num_fewshot=self.num_fewshot,
            apply_chat_template=self.apply_chat_template,
            random_seed=job.seed,
            numpy_random_seed=job.seed,
            torch_random_seed=job.seed,
            fewshot_random_seed=job.seed,
        )
        kept = {key: found[key] for key in ("results", "groups", "versions", "n-shot", "n-samples") if key in found}
        write_text(job.run_dir / FILE, json.dumps(kept, indent=1, default=str) + "\n")
        for name, samples in found["samples"].items():
            for sample in samples:
                job.predictions.add(_row(name, sample))
        rows = list(_numbers(found["results"]))
        job.table("lm-evaluation-harness", ["task", "metric", "value", "standard error"], [row[:4] for row in rows])
        return {f"{task}/{metric}": value for task, metric, value, _ in rows}


def _numbers(results: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, float, float | None]]:
    """Task, metric with its filter, value, standard error."""
    for task, numbers in results.items():
        for key, value in numbers.items():
            metric, _, chosen = key.partition(",")
            if not isinstance(value, int | float) or metric.endswith("_stderr") or not chosen:
                continue
            error = numbers.get(f"{metric}_stderr,{chosen}")
            name = metric if chosen == "none" else f"{metric}_{chosen}"
            yield task, name, float(value), error if isinstance(error, float) else None


def _row(task: str, sample: Mapping[str, Any]) -> dict[str, Any]:
    """One sample of one filter as a row of predictions.jsonl."""
    numbers = {name: sample[name] for name in sample["metrics"] if isinstance(sample.get(name), int | float)}
    return {
        "id": f"{task}-{sample['doc_id']}-{sample['filter']}",
        "input": sample["arguments"][0][0],
        "target": str(sample["target"]),
        "reply": str(sample["filtered_resps"][0]) if len(sample["filtered_resps"]) == 1 else None,
        "error": None,
        **numbers,
    }
