"""The demo's page in a browser, where Gradio (extra `demo`) and Chromium are: slow tier."""

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignlab.inference.backends.scripted import ScriptedBackend
from alignlab.tasks.demo.task import Demo
from alignlab.tasks.job import Opened
from alignlab.tasks.rewards import load_rewarded
from browser import Tab, browser
from language_job import job_of, printed, subject_of
from pictures_run import load_subject, write_pictures, write_run
from served_model import write_language_model, write_reward_model
from tiny_run import REPOSITORY

import pytest

pytest.importorskip("gradio")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium"),
]
EVIL = "<img src=http://elsewhere.example/x.png> ![x](http://elsewhere.example/y.png)"
WIDTHS = (390, 1280)


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    with browser(tmp_path / "profile") as tab:
        yield tab


@contextmanager
def shown(tab: Tab, folder: Path, subjects: list[Any], **settings: Any) -> Iterator[list[dict]]:
    """The demo of these models, opened; the list holds its rows at the end."""
    demo, job, rows = Demo(**settings), job_of(folder), []
    opened = [Opened(f"model {number}", subject) for number, subject in enumerate(subjects)]
    thread = threading.Thread(target=demo.run, args=(opened, job), daemon=True)
    thread.start()
    try:
        until = time.monotonic() + 90
        while not (said := re.search(r"http://\S+", printed(job))):
            assert thread.is_alive() and time.monotonic() < until
            time.sleep(0.1)
        tab.asked.clear()
        tab.open(said[0])
        tab.wait("document.querySelector('button.primary')")
        yield rows
        assert {re.match(r"\w+://[^/]*", url)[0] for url in tab.asked} == {said[0]}, "nothing from elsewhere"
        assert tab.said == []
    finally:
        demo.over.set()
        thread.join(timeout=20)
    assert not thread.is_alive()
    rows += [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def fill(tab: Tab, number: int, text: str) -> None:
    """Types into the visible text field of this number."""
    tab.js("document.querySelectorAll('textarea').forEach(e => e.removeAttribute('id'))")
    tab.js(f"[...document.querySelectorAll('textarea')].filter(e => e.offsetParent)[{number}].id = 'field'")
    tab.type("#field", text)


def note(tab: Tab, text: str) -> None:
    """Waits for a line on the page."""
    visible = "[...document.querySelectorAll('.note')].filter(e => e.offsetParent).map(e => e.innerText).join(' | ')"
    tab.wait(f"({visible}).includes({json.dumps(text)})")


def fits(tab: Tab) -> None:
    for width in WIDTHS:
        tab.size(width)
        time.sleep(0.3)
        assert tab.sideways() <= 0, f"at {width} px"


def test_pictures(tab: Tab, tmp_path: Path) -> None:
    tab.size(1280)
    vision = load_subject(write_run(tmp_path / "run", "albef"))
    write_pictures(vision, tmp_path / "own")
    (tmp_path / "own" / "broken.png").write_text("no picture")
    with shown(tab, tmp_path / "demo", [vision], index=str(tmp_path / "index")) as rows:
        tab.click("Search", "button.primary")
        note(tab, "the words to search for are missing")
        fill(tab, 0, "a dog")
        tab.click("Search", "button.primary")
        note(tab, "the best of 12 pictures")
        fill(tab, 1, str(tmp_path / "nowhere"))
        tab.click("Search", "button.primary")
        note(tab, "there is no such file or folder")
        fill(tab, 1, str(tmp_path / "own"))
        tab.click("Search", "button.primary")
        note(tab, "1 could not be read")
        fits(tab)
        tab.js("document.querySelector('.thumbnail-item').click()")
        tab.wait(
            "[...document.querySelectorAll('button.primary')].some(e => e.offsetParent && e.innerText == 'Compare')"
        )
        tab.wait("[...document.querySelectorAll('img')].some(e => e.offsetParent && !e.closest('.thumbnail-item'))")
        fill(tab, 0, f"a dog left of a cat\n{EVIL}")
        tab.click("Compare", "button.primary")
        note(tab, "where the matching score looks")
        assert "<img src=http" in tab.js("document.querySelector('.grid table').innerText")
        assert tab.js("[...document.querySelectorAll('.thumbnail-item')].filter(e => e.offsetParent).length") == 2
        fits(tab)
        tab.js("document.querySelector('[aria-label=\"Remove Image\"], [aria-label=Clear]').click()")
        tab.wait("document.querySelector('input[type=file]')")
        tab.upload("input[type=file]", tmp_path / "own" / "broken.png")
        tab.wait("[...document.querySelectorAll('img')].some(e => e.offsetParent && e.src.includes('broken'))")
        tab.click("Compare", "button.primary")
        note(tab, "broken.png")
        tab.said.clear()  # the browser can't show it either
    assert [row["kind"] for row in rows] == ["search", "search", "match"]
    assert rows[2]["image"] == Path(rows[1]["pictures"][0]).name


def test_questions(tab: Tab, tmp_path: Path) -> None:
    tab.size(1280)
    vision = load_subject(write_run(tmp_path / "run", "albef_vqa", source="emoji_scenes_vqa"))
    with shown(tab, tmp_path / "demo", [vision]) as rows:
        tab.click("Ask", "button.primary")
        note(tab, "a picture is missing")
        tab.click("An example")
        tab.wait("[...document.querySelectorAll('img')].some(e => e.offsetParent && e.src.includes('000000_0'))")
        tab.wait("document.querySelector('textarea').value.length > 5")
        tab.click("Ask", "button.primary")
        note(tab, "right: ")
        assert tab.js("document.querySelectorAll('.grid tbody tr').length") == 8
        fits(tab)
        fill(tab, 0, EVIL)
        tab.click("Ask", "button.primary")
        tab.wait("![...document.querySelectorAll('.note')].some(e => e.innerText.includes('right: '))")
        fill(tab, 0, " ")
        tab.click("Ask", "button.primary")
        note(tab, "the question is missing")
    assert [row["kind"] for row in rows] == ["ask", "ask"] and len(rows[0]["answers"]) == 8
    pair = load_subject(write_run(tmp_path / "pair", "albef_nlvr2", source="emoji_scenes_nlvr2"))
    with shown(tab, tmp_path / "pairs", [pair]) as rows:
        tab.click("An example")
        tab.wait("[...document.querySelectorAll('img')].filter(e => e.offsetParent && e.src).length == 2")
        tab.click("Ask", "button.primary")
        note(tab, "right: ")
        fits(tab)
    assert rows[0]["images"] == ["000000_0.png", "000000_1.png"] and set(rows[0]["answers"]) == {"false", "true"}


def test_two_models_and_texts(tab: Tab, tmp_path: Path) -> None:
    tab.size(1280)
    folder = write_language_model(tmp_path / "chat", chat=True)
    scripted = ScriptedBackend([f"Hello. {EVIL}", "Again."])
    subjects = [subject_of(folder, backend=scripted, max_new_tokens=200), subject_of(folder)]
    with shown(tab, tmp_path / "demo", subjects) as rows:
        tab.click("Send", "button.primary")
        note(tab, "the message is empty")
        fill(tab, 0, "Hi")
        tab.click("Send", "button.primary")
        tab.wait(f"document.body.innerText.includes({json.dumps(EVIL)})")  # as text
        tab.wait("document.querySelector('textarea').value == ''")
        fill(tab, 0, "x" * 600)
        tab.click("Send", "button.primary")
        note(tab, "512")
        fits(tab)
        tab.click("New dialogue")
        tab.wait("!document.body.innerText.includes('Hello.')")
        tab.click("Texts", "button[role=tab]")
        tab.wait("[...document.querySelectorAll('button.primary')].some(e => e.offsetParent && e.innerText == 'Score')")
        tab.click("Score", "button.primary")
        note(tab, "are missing")
    assert [row["kind"] for row in rows] == ["chat", "chat"] and len(rows[0]["replies"]) == 2
    rewarded = load_rewarded(str(write_reward_model(tmp_path / "reward")))
    with shown(tab, tmp_path / "rewards", [rewarded]) as rows:
        fill(tab, 0, "is it good?")
        fill(tab, 1, f"yes\n{EVIL}")
        tab.click("Score", "button.primary")
        tab.wait("document.querySelectorAll('.grid tbody tr').length == 2")
        fits(tab)
    assert [score["text"] for score in rows[0]["scores"]].count("yes") == 1


def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    model = write_language_model(tmp_path / "model")
    words = ["task=demo", f"model={model}", f"task.other={model}", f"output={tmp_path / 'out'}"]
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "infer.py"), *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = ""
    for line in process.stdout:
        said += line
        if "http://127.0.0.1" in line:
            break
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=30)[0]
    assert process.returncode == 0, said + rest
    assert "Traceback" not in rest and json.loads((tmp_path / "out" / "result.json").read_text())["status"] == "ok"
