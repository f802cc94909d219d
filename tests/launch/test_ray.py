"""Jobs of a sweep on a real Ray cluster of this machine: their ends are told, GPUs' numbers reach them, Ctrl-C has them save."""

import json
import os
import signal
import threading
import time
from pathlib import Path

from alignlab.launch.signals import Interrupted
from alignlab.launch.sweep import Job
from hydra_plugins.alignlab_launcher.ray_cluster import RayLauncher
from tiny_run import REPOSITORY

import pytest

PROGRAM = [str(REPOSITORY / "tests" / "support" / "tiny_program.py")]


class Told:
    """What a launcher tells of its jobs."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.codes = directory, {}

    def program(self) -> list[str]:
        return PROGRAM

    def begun(self, job: Job) -> None:
        job.directory.mkdir(parents=True, exist_ok=True)

    def ended(self, job: Job, code: int | None, began: float, stopped: bool) -> None:
        self.codes[job.number] = (code, stopped)


def jobs(folder: Path, *what: str) -> list[Job]:
    return [Job(number, (f"do={each}",), folder / str(number)) for number, each in enumerate(what)]


def result(job: Job) -> dict:
    return json.loads((job.directory / "result.json").read_text())


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, num_gpus=2, log_to_driver=False, include_dashboard=False)
    yield ray
    ray.shutdown()


def test_every_end_is_told(ray, tmp_path: Path) -> None:
    told, todo = Told(tmp_path), jobs(tmp_path, "end", "crash", "kill", "end")
    RayLauncher(cpus_per_job=1, gpus_per_job=1).run(todo, told)
    assert told.codes == {0: (0, False), 1: (1, False), 2: (-signal.SIGKILL, False), 3: (0, False)}
    assert {result(todo[n])["seen"]["CUDA_VISIBLE_DEVICES"] for n in (0, 3)} <= {"0", "1"}
    assert (todo[0].directory / "console.log").read_text() == "a word\n"
    assert "RuntimeError: crashed" in (todo[1].directory / "console.log").read_text()


def test_ctrl_c_has_jobs_save_and_the_rest_is_left_out(ray, tmp_path: Path) -> None:
    told, todo = Told(tmp_path), jobs(tmp_path, "wait", "wait", "end")

    def press() -> None:
        while not all((job.directory / "began").exists() for job in todo[:2]):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(Interrupted):
        RayLauncher(n_jobs=2).run(todo, told)
    assert told.codes == {0: (143, True), 1: (143, True)}
    assert [result(job)["status"] for job in todo[:2]] == ["interrupted"] * 2 and not todo[2].directory.exists()
    told.codes.clear()
    RayLauncher().run(todo, told)
    assert told.codes == dict.fromkeys(range(3), (0, False)) and result(todo[0])["resumed"]


def test_a_job_that_no_node_can_take_is_a_line(ray, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a job asks for .*'GPU': 3.*no node has more than .*'GPU': 2"):
        RayLauncher(gpus_per_job=3).run(jobs(tmp_path, "end"), Told(tmp_path))


def test_numbers_that_make_no_sense() -> None:
    for wrong in ({"n_jobs": 0}, {"gpus_per_job": -1}):
        with pytest.raises(ValueError, match=f"hydra.launcher.{next(iter(wrong))}="):
            RayLauncher(**wrong)
