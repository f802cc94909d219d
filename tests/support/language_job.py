"""A job and a tiny language model behind a backend, as the door would hand them to a task."""

import io
from pathlib import Path
from typing import Any

from alignlab.inference.backend import Backend, ModelSource, Sampling
from alignlab.inference.backends.compiled import CompiledBackend
from alignlab.models.language.context import path_context
from alignlab.models.language.paths import load_tokenizer
from alignlab.prompting.asking import Asker
from alignlab.prompting.zero_shot import ZeroShot
from alignlab.tasks.job import Job, Subject
from alignlab.tasks.predictions import Predictions

from rich.console import Console


def subject_of(folder: Path, technique: Any = None, backend: Backend | None = None, **sampling: Any) -> Subject:
    """The model of a folder, loaded."""
    backend, tokenizer = backend or CompiledBackend(), load_tokenizer(str(folder))
    loaded = backend.load(ModelSource(str(folder), tokenizer=tokenizer))
    asker = Asker(backend, tokenizer, Sampling(**sampling), batch_size=3)
    return Subject(backend, tokenizer, technique or ZeroShot(), asker, loaded, path_context(str(folder)))


def job_of(run_dir: Path, text: str | None = None, file: Path | None = None, pipe: str = "", **more: Any) -> Job:
    """A job that prints into a string."""
    run_dir.mkdir(parents=True, exist_ok=True)
    return Job(
        run_dir=run_dir,
        predictions=Predictions(run_dir, resumed=more.pop("resumed", False)),
        prompt_text=text,
        input=None if file is None else str(file),
        batch_size=3,
        pipe=io.StringIO(pipe),
        console=Console(file=io.StringIO(), width=200),
        **more,
    )


def printed(job: Job) -> str:
    """What a job has printed."""
    return job.console.file.getvalue()
