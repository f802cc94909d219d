"""Files in, files out: formats, broken lines, encodings, order, resuming, processes, a full disk, the command line."""

import errno
import gzip
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from alignlab.cli import main
from alignlab.corpus.cleaning import clean, plan_of
from alignlab.corpus.settings import chain_of
from planted_texts import english_words
from tiny_run import REPOSITORY

import pytest

SUPPORT = REPOSITORY / "tests" / "support"
WORDS = english_words()


def article(rng: random.Random, length: int = 80) -> str:
    """Passes `en_web`."""
    return " ".join(["the", "of", "and", *(rng.choice(WORDS) for _ in range(length))]) + "."


def rows(count: int, seed: int = 0) -> list[dict]:
    """Of which every fifth is an earlier one again, and every seventh has an address."""
    rng, made = random.Random(seed), []
    for number in range(count):
        text = made[number // 2]["text"] if number % 5 == 4 else article(rng)
        made.append({"id": number, "text": f"{text} jo{number}@example.com" if number % 7 == 6 else text})
    return made


def written(file: Path, made: list[dict]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return file


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_what_is_kept_and_what_is_lost_are_all_there_was(tmp_path: Path) -> None:
    file = written(tmp_path / "in.jsonl", rows(100))
    report = clean(plan_of([file]), tmp_path / "out")
    kept = [json.loads(line) for line in (tmp_path / "out" / "data" / "in.jsonl").read_text().splitlines()]
    lost = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()]
    assert sorted([row["id"] for row in kept] + [json.loads(row["row"])["id"] for row in lost]) == list(range(100))
    assert [row["id"] for row in kept] == sorted(row["id"] for row in kept)
    lines = file.read_text().splitlines()
    assert all(lines[row["line"] - 1] == row["row"] for row in lost)
    assert not any("@" in row["text"] for row in kept) and any("<email>" in row["text"] for row in kept)
    assert {row["step"] for row in lost} <= {"exact_dup", "near_dup"}
    untouched = [
        line for line in (tmp_path / "out" / "data" / "in.jsonl").read_text().splitlines() if "<email>" not in line
    ]
    assert set(untouched) <= set(lines)  # letter for letter
    funnel = report["funnel"]
    assert funnel[0]["in"] == 100 and funnel[-1]["out"] == len(kept)
    assert all(one["out"] == other["in"] for one, other in itertools.pairwise(funnel))
    assert not (tmp_path / "out" / ".corpus").exists()


@pytest.mark.parametrize("form", ["a.txt", "a.txt.gz", "a.csv", "a.tsv.gz", "a.jsonl.gz"])
def test_formats_come_out_as_they_went_in(tmp_path: Path, form: str) -> None:
    rng = random.Random(0)
    texts = [article(rng) for _ in range(20)]
    texts[3] = f'{texts[3]} He said "no, jo@example.com".'
    texts[9] = texts[4]
    separator = "," if ".csv" in form else "\t"
    quoted = [text.replace('"', '""') for text in texts]
    lines = {
        "txt": texts,
        "csv": [
            f"Id{separator}Text{separator}",
            *(f'{n}{separator}"{text}"{separator}x' for n, text in enumerate(quoted)),
        ],
        "jsonl": [json.dumps({"text": text}) for text in texts],
    }["csv" if "sv" in form else form.split(".")[1]]
    file = tmp_path / form
    data = "".join(line + "\r\n" for line in lines).encode()
    file.write_bytes(gzip.compress(data) if form.endswith(".gz") else data)
    clean(plan_of([file]), tmp_path / "out")
    after = (tmp_path / "out" / "data" / form).read_bytes()
    after = gzip.decompress(after) if form.endswith(".gz") else after
    expected = [line.replace("jo@example.com", "<email>") for line in lines]
    del expected[9 + ("sv" in form)]
    assert after.decode().split("\r\n")[:-1] == expected


def test_wrong_lines_are_rows_of_their_own_and_nothing_else(tmp_path: Path) -> None:
    good = [json.dumps({"text": article(random.Random(n))}).encode() for n in range(4)]
    latin = '{"text": "caf\xe9"}'.encode("latin-1")
    broken = [
        b'{"text": "cut',
        latin,
        b"[1, 2]",
        b'{"caption": "x"}',
        b'{"text": 3}',
        b'{"text": " "}',
        b'{"text": "\\ud800"}',
        b"\0\0",
    ]
    file = tmp_path / "in.jsonl"
    file.write_bytes(b"\n".join([good[0], *broken[:4], good[1], b"", *broken[4:], good[2], good[3]]))
    clean(plan_of([file]), tmp_path / "out")
    assert (tmp_path / "out" / "data" / "in.jsonl").read_bytes().split(b"\n") == good
    lost = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()]
    reasons = ["no JSON", "no UTF-8", "no JSON", "columns", "columns", "no text", "half a letter", "a zero byte"]
    assert [row["reason"] for row in lost] == reasons
    assert [row["line"] for row in lost] == [2, 3, 4, 5, 8, 9, 10, 11]
    assert lost[1]["row_latin1"].encode("latin-1") == latin


def test_utf_16_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    texts = [article(random.Random(n)) for n in range(3)]
    (tmp_path / "wide.txt").write_bytes("\n".join(texts).encode("utf-16"))
    (tmp_path / "marked.csv").write_bytes(
        ("text\n" + "\n".join(article(random.Random(n + 9)) for n in range(3))).encode("utf-8-sig")
    )
    report = clean(plan_of([tmp_path / "wide.txt", tmp_path / "marked.csv"]), tmp_path / "out")
    assert report["documents"] == {"in": 6, "kept": 6}
    assert (tmp_path / "out" / "data" / "wide.txt").read_text("utf-8").lstrip("\ufeff").split("\n") == texts
    assert (tmp_path / "out" / "data" / "marked.csv").read_bytes() == (tmp_path / "marked.csv").read_bytes()


def test_parts_and_processes_change_nothing(tmp_path: Path) -> None:
    made = rows(400)
    written(tmp_path / "in" / "a.jsonl", made[:250])
    written(tmp_path / "in" / "sub" / "b.jsonl", made[250:])
    plan = plan_of([tmp_path / "in"])
    clean(plan, tmp_path / "whole")
    clean(plan, tmp_path / "parts", part=10_000)
    for name in ("data/a.jsonl", "data/sub/b.jsonl", "dropped.jsonl", "report.html"):
        whole, parts = ((tmp_path / one / name).read_bytes() for one in ("whole", "parts"))
        assert name == "report.html" or whole == parts
    places = [json.loads(line)["file"] for line in (tmp_path / "whole" / "dropped.jsonl").read_text().splitlines()]
    assert set(places) == {"a.jsonl", "sub/b.jsonl"}


def test_held_out_files_are_compared_with_and_left_alone(tmp_path: Path) -> None:
    made = rows(20)
    unique = [row for n, row in enumerate(made) if n % 5 != 4]
    train, held = written(tmp_path / "train.jsonl", unique), written(tmp_path / "held.jsonl", unique[3:5])
    report = clean(plan_of([train], [held]), tmp_path / "out")
    assert report["documents"] == {"in": 16, "kept": 14}
    assert report["crossing"] == [{"file": "train.jsonl", "kept in": "held.jsonl", "documents": 2}]
    assert not (tmp_path / "out" / "data" / "held.jsonl").exists()
    lost = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()]
    assert [row["evidence"]["of"] for row in lost] == ["held.jsonl, line 1", "held.jsonl, line 2"]


_KILLED = """
import sys, time
from pathlib import Path
from alignlab.corpus import looking
from alignlab.corpus.cleaning import clean, plan_of
import alignlab.corpus.cleaning as room
slow = room.look
def look(plan, part, number, work):
    print(number, flush=True)
    time.sleep(0.05)
    slow(plan, part, number, work)
room.look = look
clean(plan_of([Path(sys.argv[1])]), Path(sys.argv[2]), part=int(sys.argv[3]))
"""


@pytest.mark.distributed
def test_killed_again_and_again_it_ends_as_undisturbed(tmp_path: Path) -> None:
    file = written(tmp_path / "in.jsonl", rows(300))
    clean(plan_of([file]), tmp_path / "whole", part=15_000)
    command, seen = [sys.executable, "-c", _KILLED, file, tmp_path / "out", "15000"], []
    for turn in range(3):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for _ in range(3):
            seen.append(int(process.stdout.readline()))
        time.sleep(0.01 * turn)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "out" / "report.json").exists()
    subprocess.run(command, check=True, capture_output=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert seen[3] > seen[0] and seen[6] > seen[3]  # it went on


@pytest.mark.distributed
def test_several_processes_give_the_same(tmp_path: Path) -> None:
    file = written(tmp_path / "in.jsonl", rows(200))
    plan = plan_of([file])
    clean(plan, tmp_path / "one", part=20_000)
    clean(plan, tmp_path / "two", part=20_000, jobs=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.distributed
def test_a_full_disk_is_a_line_and_the_same_command_goes_on(tmp_path: Path) -> None:
    library = tmp_path / "faulty_disk.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, SUPPORT / "faulty_disk.c", "-ldl"], check=True)
    file = written(tmp_path / "in.jsonl", rows(200))
    command = [sys.executable, "-m", "alignlab.cli", "corpus", "clean", str(file), "--to", str(tmp_path / "out")]
    faults = {
        "FAULT_PATH": str(tmp_path / "out"),
        "FAULT_AFTER": "60000",
        "FAULT": str(errno.ENOSPC),
        "LD_PRELOAD": str(library),
    }
    failed = subprocess.run(command, env={**os.environ, **faults}, capture_output=True, text=True)
    assert failed.returncode == 2 and "No space left" in failed.stderr and failed.stderr.count("\n") == 1, failed.stderr
    assert not (tmp_path / "out" / "data" / "in.jsonl").exists() and not list((tmp_path / "out").rglob("*.tmp"))
    subprocess.run(command, check=True, capture_output=True)
    clean(plan_of([file]), tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path / "in.jsonl", rows(50))
    before = file.read_bytes()
    assert main(["corpus", "audit", "in.jsonl"]) == 0
    assert file.read_bytes() == before
    assert {one.name for one in (tmp_path / "corpus_audit").iterdir()} == {
        "report.html",
        "report.json",
        "dropped.jsonl",
    }
    assert main(["corpus", "clean", "in.jsonl", "--to", "out", "--set", "pii.action=drop"]) == 0
    told = capsys.readouterr().out
    assert "pii" in told and "documents are kept" in told
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page and "exact_dup" in page
    assert main(["corpus", "clean", "in.jsonl", "--to", "out", "--set", "pii.action=drop"]) == 0  # done already
    (tmp_path / "chain.yaml").write_text("- schema\n- quality: {preset: caption, max_words: 5}\n")
    assert main(["corpus", "clean", "in.jsonl", "--to", "two", "--chain", "chain.yaml"]) == 0
    assert json.loads((tmp_path / "two" / "report.json").read_text())["documents"]["kept"] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing.jsonl"], "nothing.jsonl: there is no such file"),
        (["in.pdf"], "in.pdf ends with .pdf; what is read is .txt, .text, .jsonl"),
        (["empty"], "empty holds no .txt"),
        (["in.jsonl", "in.jsonl"], "in.jsonl is given twice"),
        (["data/in.jsonl", "--to", "."], "would overwrite data/in.jsonl"),
        (
            ["in.jsonl", "--set", "near_dup.treshold=1"],
            "there is no setting of near_dup treshold; did you mean threshold?",
        ),
        (["in.jsonl", "--set", "near_dup.threshold=2"], "near_dup.threshold is 2; it must lie between 0.5 and 1"),
        (["in.jsonl", "--set", "quality.preset=en"], "quality.preset is 'en'; there are auto, en_web"),
        (["in.jsonl", "--set", "quality.min_word=1"], "did you mean min_words?"),
        (["in.jsonl", "--steps", "schema", "near_dups"], "there is no step near_dups; did you mean near_dup?"),
        (["in.jsonl", "--steps", "schema", "--set", "pii.action=drop"], "the chain has no step pii, but schema"),
        (["in.jsonl", "--set", "pii"], "--set pii: it must be step.setting=value"),
        (["in.jsonl", "--jobs", "0"], "--jobs is 0; it must be at least 1"),
        (["odd.jsonl"], "odd.jsonl: no column text, caption"),
        (["odd.csv"], "odd.csv, line 1: the header reads 'a,b'"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "in.jsonl", rows(3))
    written(tmp_path / "data" / "in.jsonl", rows(3))
    (tmp_path / "in.pdf").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "odd.csv").write_text("a,b\n1,2\n")
    before = contents(tmp_path)
    assert main(["corpus", "clean", *words, *([] if "--to" in words else ["--to", "out"])]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert contents(tmp_path) == before


def test_a_txt_may_be_one_document(tmp_path: Path) -> None:
    rng = random.Random(0)
    texts = {
        "a.txt": f"{article(rng)}\n\n{article(rng)}\n",
        "b.txt": "too short\n",
        "sub/c.txt": f"{article(rng)} jo@example.com",
    }
    for name, text in texts.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text(text)
    clean(plan_of([tmp_path / "in"], whole_files=True), tmp_path / "out")
    found = {
        str(file.relative_to(tmp_path / "out" / "data")): file.read_text() for file in (tmp_path / "out").rglob("*.txt")
    }
    assert found == {"a.txt": texts["a.txt"], "sub/c.txt": texts["sub/c.txt"].replace("jo@example.com", "<email>")}


def test_the_folder_that_is_read_may_hold_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "in.jsonl", rows(10))
    for _ in range(2):
        assert main(["corpus", "clean", ".", "--to", "out"]) == 0
    assert json.loads((tmp_path / "out" / "report.json").read_text())["documents"]["in"] == 10


def test_results_of_other_settings_are_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = written(tmp_path / "in.jsonl", rows(20))
    clean(plan_of([file]), tmp_path / "out")
    before = contents(tmp_path / "out")
    other = plan_of([file], chain=lambda kind: chain_of(kind, ["schema"]))
    with pytest.raises(ValueError, match="holds the results of other inputs or settings"):
        clean(other, tmp_path / "out")
    assert contents(tmp_path / "out") == before
