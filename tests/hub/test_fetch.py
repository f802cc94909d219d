"""`alignlab fetch` against a hub on the loopback whose faults are scripted: the bytes are right in the end, or it says why not."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import alignlab.hub.download
from alignlab.cli import main
from alignlab.hub.assets import listed
from alignlab.hub.remote_file import RemoteFile
from loopback_hub import LoopbackHub
from served_model import write_language_model
from tiny_run import REPOSITORY

import huggingface_hub
import pytest

MB = 2**20
BIG = os.urandom(3 * MB + 17)
FILES = {
    "config.json": b"{}",
    "model.safetensors": BIG,
    "vocab/with space ü.txt": "größe".encode() * 400,
    "README.md": b"---\nlicense: mit\n---\n",
    "pytorch_model.bin": b"pickle" * 1000,
    "tf_model.h5": b"h5" * 1000,
    ".gitattributes": b"",
}
NEEDED = {"config.json", "model.safetensors", "vocab/with space ü.txt", "README.md"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(alignlab.hub.download.random, "uniform", lambda low, high: 0.02)  # no waits between tries
    return tmp_path / "cache"


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    server = LoopbackHub({"org/tiny": dict(FILES), "datasets/org/rows": {"data/a.jsonl": b'{"a": 1}\n' * 500}})
    yield server
    server.close()


def get(hub: LoopbackHub, *words: str, endpoints: tuple[str, ...] = ()) -> int:
    return main(["fetch", "get", *words, "--endpoint", *(endpoints or (hub.url,)), "--timeout", "1"])


def right(folder: Path, wanted: set[str] = NEEDED) -> None:
    """Every file whole, nothing else beside them."""
    have = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert have.keys() == wanted
    assert all(have[path] == FILES[path] for path in wanted)


FAULTS = {
    "none": [],
    "drop": [("drop", 1000), ("drop", MB), ("drop", 7)],
    "hang": [("hang", 1.5)],
    "whole despite a range": [("drop", 2 * MB), ("whole",)],
    "another range": [("drop", 2 * MB), ("range", 5)],
    "another ETag": [("drop", 2 * MB), ("etag",)],
    "flipped byte": [("flip", MB)],
    "flipped byte of a part": [("drop", 2 * MB), ("flip", 2 * MB + 5)],
    "longer": [("long", 10)],
    "shorter": [("short", 10)],
    "429": [("status", 429, {"Retry-After": "0"})],
    "503 twice": [("status", 503), ("status", 503)],
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_bytes_are_right_whatever_happens(hub: LoopbackHub, tmp_path: Path, name: str) -> None:
    hub.faults = {"model.safetensors": list(FAULTS[name]), "config.json": [("flip", 1)]}
    assert get(hub, "org/tiny", "--dest", "here") == 0
    right(tmp_path / "here")
    assert not hub.faults["model.safetensors"], "every fault has happened"


def test_what_has_come_isnt_asked_for_again(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.faults = {"model.safetensors": [("drop", 2 * MB)]}
    assert get(hub, "org/tiny", "--dest", "here") == 0
    first, second = hub.asked("model.safetensors")
    assert "Range" not in first and second["Range"] == f"bytes={2 * MB}-" and second["If-Range"]


@pytest.mark.distributed
def test_a_killed_process_is_gone_on_from(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.faults = {"model.safetensors": [("slow", 0.4)]}
    command = [sys.executable, "-c", "import sys; from alignlab.cli import main; sys.exit(main())", "fetch", "get"]
    command += ["org/tiny", "--dest", "here", "--endpoint", hub.url]
    part = tmp_path / "here" / "model.safetensors.part"
    with subprocess.Popen(command) as process:
        while not part.exists() or part.stat().st_size < MB:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    have = part.stat().st_size
    assert MB <= have < len(BIG)
    done = [subprocess.Popen(command) for _ in range(2)]  # and two at a time
    assert [process.wait(60) for process in done] == [0, 0]
    right(tmp_path / "here")
    assert [headers.get("Range") for headers in hub.asked("model.safetensors")] == [None, f"bytes={have}-"]


def test_transformers_reads_it_without_a_network(hub: LoopbackHub, tmp_path: Path, cache: Path) -> None:
    write_language_model(tmp_path / "model")
    hub.repositories["org/lm"] = {p.name: p.read_bytes() for p in (tmp_path / "model").iterdir() if p.is_file()}
    assert get(hub, "org/lm", "datasets/org/rows") == 0
    from transformers import AutoModelForCausalLM, AutoTokenizer

    offline = {"cache_dir": cache, "local_files_only": True}
    net, tokenizer = (kind.from_pretrained("org/lm", **offline) for kind in (AutoModelForCausalLM, AutoTokenizer))
    assert net.num_parameters() > 0 and tokenizer("a")["input_ids"]
    rows = huggingface_hub.snapshot_download("org/rows", repo_type="dataset", **offline)
    assert Path(rows, "data", "a.jsonl").read_bytes() == hub.repositories["datasets/org/rows"]["data/a.jsonl"]
    before = len(hub.requests)
    assert get(hub, "org/lm") == 0
    assert all("/api/" in path for path, _ in hub.requests[before:]), "what is here isn't fetched again"


def test_equal_bytes_lie_once(hub: LoopbackHub, cache: Path) -> None:
    hub.repositories["org/twin"] = {"model.safetensors": BIG}
    assert [get(hub, name) for name in ("org/tiny", "org/twin")] == [0, 0]
    digest = hashlib.sha256(BIG).hexdigest()
    blobs = list(cache.glob(f"*/blobs/{digest}"))
    assert len(blobs) == 2 and len({blob.stat().st_ino for blob in blobs}) == 1


def test_the_lock_file_keeps_the_commit(hub: LoopbackHub, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert get(hub, "org/tiny", "--dest", "here") == 0
    entry = json.loads((tmp_path / "assets.lock.json").read_text())["repositories"][0]
    assert entry["commit"] == "a" * 40 and {file["path"] for file in entry["files"]} == NEEDED
    hub.commit = "b" * 40  # main has moved on
    hub.repositories["org/tiny"]["config.json"] = b'{"new": 1}'
    assert get(hub, "org/tiny", "--dest", "here") == 3
    assert "no revision" in capsys.readouterr().err  # this double knows no old commits: nothing is mixed
    right(tmp_path / "here")
    assert get(hub, "org/tiny", "--dest", "here", "--update") == 0
    assert (tmp_path / "here" / "config.json").read_bytes() == b'{"new": 1}'


def test_mirrors_stand_in_and_commits_are_never_mixed(hub: LoopbackHub, tmp_path: Path) -> None:
    other = LoopbackHub({"org/tiny": dict(FILES) | {"config.json": b"[]"}}, commit="b" * 40)
    mirror = LoopbackHub({"org/tiny": dict(FILES)})
    dead = "http://127.0.0.1:9"
    hub.faults = {"model.safetensors": [("status", 503)] * 5}
    assert get(hub, "org/tiny", "--dest", "here", endpoints=(hub.url, other.url, dead, mirror.url)) == 0
    right(tmp_path / "here")
    assert len(mirror.asked("model.safetensors")) == 1
    assert all("Authorization" not in headers for _, headers in mirror.requests + other.requests)
    assert get(hub, "org/tiny", "--dest", "there", endpoints=(dead, mirror.url)) == 0
    other.close()
    mirror.close()


def test_the_token_stays_with_its_host(hub: LoopbackHub, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    elsewhere = LoopbackHub({"org/tiny": dict(FILES)})
    hub.elsewhere = elsewhere.url
    assert get(hub, "org/tiny", "--dest", "here") == 0
    right(tmp_path / "here")
    assert {headers.get("Authorization") for _, headers in hub.requests} == {"Bearer hf_secret"}
    assert elsewhere.requests and all("Authorization" not in headers for _, headers in elsewhere.requests)
    said = capfd.readouterr()
    assert "hf_secret" not in said.out + said.err + (tmp_path / "assets.lock.json").read_text()
    elsewhere.close()


def test_one_broken_repository_doesnt_stop_the_rest(
    hub: LoopbackHub, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    hub.repositories |= {
        "org/gated": dict(FILES),
        "org/bin": {"pytorch_model.bin": b"x" * 2000},
        "org/bad": dict(FILES),
    }
    hub.gated.add("org/gated")
    hub.faults["model.safetensors"] = [("flip", 1)] * 2
    names = ["org/bad", "org/gated", "org/missing", "org/bin", "datasets/org/tiny", "org/tiny@v2", "org/tiny"]
    assert get(hub, *names, "--dest", "here", *("--workers", "1")) == 3
    right(tmp_path / "here" / "org" / "tiny")
    assert not list(tmp_path.rglob("bad/model.safetensors"))
    said = capsys.readouterr().err
    for line in (
        "bad: model.safetensors from",
        "accept its terms",
        "or datasets/org/missing?",
        "--pickle",
        "revision 'v2'",
    ):
        assert line in said, line
    assert "or org/tiny?" in said


@pytest.mark.parametrize("path", ["../evil", "/evil", "a/../../evil", "a\\evil", "C:evil", ".git/config", "a\nb"])
def test_paths_that_leave_the_folder_are_refused(hub: LoopbackHub, path: str, capsys: pytest.CaptureFixture) -> None:
    hub.repositories["org/evil"] = {path: b"x", "config.json": b"{}"}
    assert get(hub, "org/evil", "--dest", "here", "--whole") == 3
    assert "refused" in capsys.readouterr().err
    assert not list(Path().rglob("*evil*"))


def test_names_that_differ_in_case_alone_are_refused(hub: LoopbackHub, capsys: pytest.CaptureFixture) -> None:
    hub.repositories["org/case"] = {"Config.json": b"x", "config.json": b"{}"}
    assert get(hub, "org/case") == 3
    assert "'Config.json' and 'config.json'" in capsys.readouterr().err


def test_many_pages_of_small_files(tmp_path: Path) -> None:
    files = {f"data/{n:03}.txt": str(n).encode() for n in range(120)}
    hub = LoopbackHub({"datasets/org/many": files}, page=50)
    assert get(hub, "datasets/org/many", "--dest", "here") == 0
    assert {f"data/{p.name}": p.read_bytes() for p in (tmp_path / "here" / "data").iterdir()} == files
    hub.close()


def test_verify_and_repair(hub: LoopbackHub, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert get(hub, "org/tiny", "--dest", "here") == 0
    here = tmp_path / "here"
    flipped = bytearray(BIG)
    flipped[5] ^= 1
    (here / "model.safetensors").write_bytes(flipped)
    (here / "config.json").unlink()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5\n"
    (here / "vocab" / "with space ü.txt").write_bytes(pointer)
    (here / "mine.txt").write_text("x")
    asked = len(hub.requests)
    assert main(["fetch", "verify"]) == 3
    assert len(hub.requests) == asked, "verify needs no network"
    said = capsys.readouterr().out
    for line in (
        "corrupt  org/tiny: model.safetensors",
        "missing  org/tiny: config.json",
        "pointer  ",
        "extra    org/tiny: mine.txt",
    ):
        assert line in said, line
    assert main(["fetch", "verify", "--repair", "--endpoint", hub.url]) == 0
    assert main(["fetch", "verify"]) == 0
    (here / "mine.txt").unlink()
    right(here)


def test_plan_fetches_nothing_and_room_is_checked_first(hub: LoopbackHub, tmp_path: Path, monkeypatch, capsys) -> None:
    plan = ["fetch", "plan", "org/tiny", "--endpoint", hub.url, "--dest", "here", "--json", "plan.json"]
    assert main(plan) == 0
    row = json.loads((tmp_path / "plan.json").read_text())[0]
    assert row["files"] == "4 of 7" and row["licence"] == "mit" and row["state"] == "to come"
    usage = alignlab.hub.fetch.shutil.disk_usage(tmp_path)
    monkeypatch.setattr("alignlab.hub.fetch.shutil.disk_usage", lambda folder: usage._replace(free=MB))
    assert get(hub, "org/tiny", "--dest", "here") == 2
    assert "nothing was fetched" in capsys.readouterr().err
    assert not (tmp_path / "here").exists() and hub.sent == 0


def test_a_clone_without_lfs_is_completed(hub: LoopbackHub, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git = ["git", "-C", str(clone), "-c", "user.name=a", "-c", "user.email=a@b"]
    digest = hashlib.sha256(BIG).hexdigest()
    clone.mkdir()
    (clone / "model.safetensors").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(BIG)}\n"
    )
    (clone / "config.json").write_text("{}")
    for words in (
        ["init", "-q"],
        ["remote", "add", "origin", f"{hub.url}/org/tiny"],
        ["add", "."],
        ["commit", "-qm", "x"],
    ):
        subprocess.run([*git, *words], check=True)
    hub.commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert main(["fetch", "from-git", str(clone), "--endpoint", hub.url]) == 0
    assert (clone / "model.safetensors").read_bytes() == BIG
    assert not hub.asked("config.json")


def test_lists_and_what_is_wrong_with_them(hub: LoopbackHub, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "conf" / "assets").mkdir(parents=True)
    file = tmp_path / "conf" / "assets" / "mine.yaml"
    file.write_text("assets:\n- {repo: org/tiny, include: ['*.json']}\n- datasets/org/rows\n")
    assert get(hub, "mine", "--dest", "here") == 0
    assert {p.name for p in (tmp_path / "here").rglob("*.json*")} == {"config.json", "a.jsonl"}
    for text, said in (
        ("assets:\n- {repo: org/tiny, incldue: x}\n", "incldue'; include?"),
        ("assets: 3\n", "a list of repositories"),
        ("- {repo: org/tiny, type: space}\n", "there are model and dataset"),
        ("- [1]\n", "neither a name nor"),
        ("{\n", "mine.yaml"),
    ):
        file.write_text(text)
        assert get(hub, "mine") == 2
        assert said in capsys.readouterr().err
    assert get(hub, "../x") == 2 and "organisation/name" in capsys.readouterr().err


def test_a_full_disk_is_said_once_and_gone_on_from(hub: LoopbackHub, tmp_path: Path, monkeypatch, capsys) -> None:
    write = alignlab.hub.download._write

    def full(file: RemoteFile, part: Path, *rest: object) -> None:
        if file.path == "model.safetensors":
            with alignlab.hub.download._room(file, part), open("/dev/full", "wb", buffering=0) as disk:
                disk.write(b"x")
        write(file, part, *rest)

    monkeypatch.setattr(alignlab.hub.download, "_write", full)
    assert get(hub, "org/tiny", "--dest", "here") == 3
    assert "no space left for model.safetensors" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert get(hub, "org/tiny", "--dest", "here") == 0
    right(tmp_path / "here")


def test_ctrl_c_ends_soon_and_the_same_command_goes_on(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.faults = {"model.safetensors": [("slow", 0.3)]}
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    assert get(hub, "org/tiny", "--dest", "here") == 130
    assert get(hub, "org/tiny", "--dest", "here") == 0
    right(tmp_path / "here")


def test_a_run_that_lacks_a_model_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alignlab.data.image_text.vocabulary import load_tokenizer
    from alignlab.inference.source import _download

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for load in (load_tokenizer, _download):
        with pytest.raises(ValueError, match=r"programs don't download: alignlab fetch get org/nowhere$"):
            load("org/nowhere")


def test_the_lists_of_conf_are_read() -> None:
    for file in (REPOSITORY / "conf" / "assets").glob("*.yaml"):
        assert listed(file)
