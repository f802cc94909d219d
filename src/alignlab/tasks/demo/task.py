"""`task=demo`: a page in the browser for whatever model there is."""

import signal
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from alignlab.launch.signals import Interrupted
from alignlab.tasks.demo.asking import Asking
from alignlab.tasks.demo.asking_page import asking_page
from alignlab.tasks.demo.looking import Looking
from alignlab.tasks.demo.page import CSS, judging_page, looking_page, talking_page
from alignlab.tasks.demo.server import LOOPBACK, check_extra, gradio, listen, served
from alignlab.tasks.demo.talking import Talking
from alignlab.tasks.job import Job, Opened, Subject
from alignlab.tasks.pictures.asking import names_of
from alignlab.tasks.pictures.subject import VisionLanguage


class Demo:
    """A page on this machine (extra `demo`), until Ctrl-C.

    Of a model of pictures and texts search, matches and heat; of one that was fine-tuned for answers or labels these;
    of language models a chat, of two side by side, and how likely texts are; of a reward model how good texts are.

    Rows: what was asked, and what came of it.

    Args:
        pictures: a folder to search where the page names none; None: the run's held-out pictures.
        other: a second language model.
        system: the first message of a dialogue.
        port: of the page; None: the first that is free from 7860 on.
        held_out: at most so many of the run's held-out pictures are searched.
        index: folder for the features of searched folders; None: `index/` in the model's run directory.
    """

    needs = "any"

    def __init__(
        self,
        pictures: str | None = None,
        other: str | None = None,
        system: str = "",
        port: int | None = None,
        held_out: int = 1000,
        index: str | None = None,
    ) -> None:
        if held_out < 1:
            raise ValueError(f"held_out is {held_out}; it must be at least 1")
        if port is not None and not 0 < port < 2**16:
            raise ValueError(f"port is {port}; it must lie between 1 and 65535")
        check_extra()
        self.pictures, self.other, self.system = pictures, other, system
        self.port, self.held_out, self.index = port, held_out, index
        self.over = threading.Event()

    def run(self, subjects: list[Opened], job: Job) -> dict[str, float]:
        kinds = [type(opened.subject) for opened in subjects]
        if len(subjects) > 1 and kinds != [Subject, Subject]:
            wrong = next(opened.name for opened in subjects if not isinstance(opened.subject, Subject))
            raise ValueError(f"other={self.other}: two language models answer side by side, and {wrong} is none")
        notes = _Notes(job)
        with tempfile.TemporaryDirectory(prefix="alignlab-demo-", ignore_cleanup_errors=True) as folder:
            gr, waiting = gradio(Path(folder)), listen(self.port)
            page, talking = self._page(gr, subjects, job, Path(folder), notes)
            with served(gr, page, waiting, CSS.read_text(encoding="utf-8")), suppress(KeyboardInterrupt):
                try:
                    job.console.print(f"http://{LOOPBACK}:{waiting.getsockname()[1]} (Ctrl-C ends)")
                    self.over.wait()
                except Interrupted as stop:
                    if stop.number != signal.SIGINT:  # Ctrl-C is how it ends
                        raise
                finally:
                    talking.stop()
        return {"asked": float(notes.count)}

    def _page(self, gr: Any, subjects: list[Opened], job: Job, folder: Path, notes: "_Notes") -> tuple[Any, Talking]:
        first, talking = subjects[0], Talking([])
        if isinstance(first.subject, VisionLanguage) and names_of(first.subject.datamodule):
            return asking_page(gr, first, Asking(first.subject, folder), notes), talking
        if isinstance(first.subject, VisionLanguage):
            looking = Looking(first.subject, job, folder, self.pictures, self.index, self.held_out)
            return looking_page(gr, first, looking, notes), talking
        if isinstance(first.subject, Subject):
            talking = Talking([opened.subject for opened in subjects], self.system)
            return talking_page(gr, subjects, talking, notes), talking
        return judging_page(gr, first, notes), talking


class _Notes:
    """Rows of what was asked, from several threads."""

    def __init__(self, job: Job) -> None:
        self._job, self._lock, self.count = job, threading.Lock(), 0

    def __call__(self, kind: str, text: str, **more: object) -> None:
        with self._lock:
            row = {"id": str(len(self._job.predictions.rows)), "kind": kind, "input": text, **more, "error": None}
            self._job.predictions.add(row)
            self.count += 1
