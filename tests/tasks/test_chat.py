"""A dialogue through a pipe: the model sees all turns so far, an error ends a turn only."""

from dataclasses import replace
from pathlib import Path

from alignlab.inference.backends.scripted import ScriptedBackend
from alignlab.tasks.chat import Chat
from language_job import job_of, printed, subject_of


def test_a_dialogue(chat_model: Path, tmp_path: Path) -> None:
    backend = ScriptedBackend([" Hello. ", "I said hello.", "A bee.", "Ciao."])
    job = job_of(tmp_path, pipe="Hi\n\nwhat?\nWho are you?\n/reset\nBye\n")
    found = Chat("Be a bee.").run(subject_of(chat_model, backend=backend), job)
    start = "<system>Be a bee.</system>\n"
    second = f"{start}<user>Hi</user>\n<assistant>Hello.</assistant>\n<user>what?</user>\n<assistant>"
    assert backend.prompts[:2] == [f"{start}<user>Hi</user>\n<assistant>", second]
    assert backend.prompts[2].startswith(f"{second}I said hello.</assistant>\n<user>Who")
    assert backend.prompts[3] == f"{start}<user>Bye</user>\n<assistant>"
    assert printed(job).splitlines() == [" Hello. ", "I said hello.", "A bee.", "Ciao."]
    assert found == {"turns": 4.0, "failed": 0.0}


def test_a_dialogue_is_resumed(chat_model: Path, tmp_path: Path) -> None:
    Chat().run(subject_of(chat_model, backend=ScriptedBackend(["Hello."])), job_of(tmp_path, pipe="Hi\n"))
    again = ScriptedBackend({"<user>And": "Yes."})
    Chat().run(subject_of(chat_model, backend=again), job_of(tmp_path, pipe="And now?\n", resumed=True))
    assert again.prompts[0].startswith("<user>Hi</user>\n<assistant>Hello.</assistant>\n")


def test_a_real_model(chat_model: Path, tmp_path: Path) -> None:
    job = job_of(tmp_path, pipe=f"Hi\n{'x' * 600}\nYou?\n")
    found = Chat().run(subject_of(chat_model, max_new_tokens=5), job)
    rows = list(job.predictions.rows.values())
    assert found == {"turns": 3.0, "failed": 1.0}
    assert "512" in rows[1]["error"] and "512" in printed(job)
    assert [row["error"] is None for row in rows] == [True, False, True]


def test_a_turn_shows_no_part_of_a_stop_string(chat_model: Path, tmp_path: Path) -> None:
    job, subject = (
        job_of(tmp_path, pipe="Hi\nwhat?\n"),
        subject_of(chat_model, backend=ScriptedBackend(["Ho<|x|>a", "Ho<|"])),
    )
    sampling = subject.asker.sampling._replace(stop=("<|x|>",))
    Chat().run(subject._replace(asker=replace(subject.asker, sampling=sampling)), job)
    assert [row["reply"] for row in job.predictions.rows.values()] == ["Ho", "Ho<|"]
    assert printed(job).splitlines() == ["Ho", "Ho<|"]
