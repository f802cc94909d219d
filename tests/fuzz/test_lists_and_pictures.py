"""Mutated lists, rows and pictures from a seed: what comes out is right, or one line about what is wrong; nothing is lost in silence, nothing hangs."""

import io
import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from alignlab.data.image_text.annotations import read_annotations
from alignlab.data.image_text.picture_cache import read_picture
from alignlab.data.language.rows import example, normalised, preference, prompt, read_jsonl
from tiny_run import REPOSITORY

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow
LETTERS = "abcdefgh XYZ ,;'\"\t-%é二ハ゛\u2028\x85\u200d🐝"
VALUES = (
    None,
    True,
    0,
    3.5,
    float("nan"),
    "",
    " ",
    "text",
    [],
    ["one", "two"],
    [None],
    [["a"]],
    {},
    {"en": "a"},
    "a\ud800",
    "\0",
    10**400,
)


@pytest.fixture(autouse=True)
def _no_case_hangs() -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError("a case took more than two minutes")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def outcome(make: Callable[[], object], about: str) -> object:
    """What `make` gives; None where it refuses in one line that says what it is about."""
    try:
        return make()
    except ValueError as error:
        refusal = error
    assert type(refusal) is ValueError and len(str(refusal).splitlines()) == 1 and about in str(refusal), repr(refusal)
    return None


def mutated(content: bytes, rng: random.Random) -> bytes:
    """One to three changes: cut, flipped, inserted, doubled, exchanged."""
    content = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(content) + 1)
        end = min(len(content), place + rng.randint(1, 12))
        match rng.randrange(6):
            case 0:
                del content[place:]
            case 1:
                del content[place:end]
            case 2 if place < len(content):
                content[place] ^= 1 << rng.randrange(8)
            case 3:
                content[place:place] = rng.choice(
                    (b'"', b",", b";", b"\t", b"\n", b"\r\n", b"\0", b"\xff", b"\\", b"{", b"\xe2\x80\xa8")
                )
            case 4:
                content[place:place] = content[place:end]
            case 5:
                content[place:end] = bytes(rng.randrange(256) for _ in range(end - place))
    return bytes(content)


def caption_rows(rng: random.Random) -> list[tuple[str, str, str]]:
    """Rows of a picture each: name, caption, split."""
    rows = []
    for number in range(rng.randint(1, 8)):
        caption = "c" + "".join(rng.choice(LETTERS) for _ in range(rng.randint(1, 30))) + "."
        rows.append((f"{number} p.png", caption, rng.choice(("train", "Train", "val", "VALIDATION", "", "test"))))
    return rows


def written(rows: list[tuple[str, str, str]], rng: random.Random) -> tuple[str, bytes]:
    """A file's name and content that holds the rows, in one of the ways that people write them."""
    suffix = rng.choice((".csv", ".tsv", ".jsonl", ".json"))
    header = [
        rng.choice(names) for names in (("image", "Image", " path "), ("caption", "TITLE", "text"), ("split", "Split"))
    ]
    if suffix in (".csv", ".tsv"):
        separator = rng.choice((",", ";", "\t"))

        def field(text: str) -> str:
            quoted = '"' + text.replace('"', '""') + '"'
            return quoted if rng.random() < 0.3 or separator in text or text.startswith('"') else text

        lines = [separator.join(map(field, row)) for row in (header, *rows)]
    else:
        objects = [dict(zip(header, row, strict=True)) for row in rows]
        lines = [json.dumps(one, ensure_ascii=rng.random() < 0.5) for one in objects]
        lines = lines if suffix == ".jsonl" else [json.dumps(objects, indent=rng.choice((None, 1)))]
    end = rng.choice(("\n", "\r\n", "\r"))
    text = end.join(lines) + rng.choice(("", end, 2 * end))
    return f"list{suffix}", text.encode(rng.choice(("utf-8", "utf-8-sig", "utf-16")))


def lines_of(content: bytes) -> int:
    """Lines that aren't blank, counted apart from the reader."""
    for encoding in ("utf-8-sig", "utf-16"):
        try:
            text = content.decode(encoding)
            return sum(bool(line.strip()) for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
        except UnicodeDecodeError:
            continue
    raise AssertionError("a file that is no text was read")


@pytest.mark.parametrize("block", range(8))
def test_lists_of_captions(tmp_path: Path, block: int) -> None:
    names = {"train": "train", "Train": "train", "val": "val", "VALIDATION": "val", "": "", "test": "test"}
    for seed in range(20 * block, 20 * block + 20):
        rng = random.Random(seed)
        rows = caption_rows(rng)
        name, content = written(rows, rng)
        file = tmp_path / name
        file.write_bytes(content)
        found = read_annotations(file)
        pictures = {(split, p.name, *p.captions) for split, several in found.items() for p in several}
        assert pictures == {(names[split], image, caption.strip()) for image, caption, split in rows}, seed
        file.write_bytes(broken := mutated(content, rng))
        found = outcome(lambda file=file: read_annotations(file), name)
        if found is not None:
            captions = sum(len(p.captions) for several in found.values() for p in several)
            expected = (
                len(json.loads(broken.decode("utf-8-sig" if broken[:1] != b"\xff" else "utf-16")))
                if name == "list.json"
                else lines_of(broken)
            )
            assert captions == expected - name.endswith(("csv", "tsv")), (seed, broken)


def text_or_texts(value: object) -> bool:
    texts = value if isinstance(value, list) else [value]
    whole = all(isinstance(t, str) and "\ud800" not in t and "\0" not in t for t in texts)
    return whole and any(t.strip() for t in texts)


@pytest.mark.parametrize("key", ["image", "caption", "split"])
def test_values_of_other_kinds_in_lists_of_captions(tmp_path: Path, key: str) -> None:
    for value in VALUES:
        row = {"image": "a.png", "caption": "one", "split": "train"} | {key: value}
        (tmp_path / "a.jsonl").write_text(json.dumps(row))
        found = outcome(lambda: read_annotations(tmp_path / "a.jsonl"), "a.jsonl, line 1")
        fine = {
            "image": isinstance(value, str) and value != "" and text_or_texts([value, "x"]),
            "caption": text_or_texts(value),
            "split": value is None or (isinstance(value, str) and text_or_texts([value, "x"])),
        }
        assert (found is not None) == fine[key], (value, found)


CHAT = [{"role": "user", "content": "sky?"}, {"role": "assistant", "content": "blue"}]
ROWS = [
    (example, {"text": "a b"}),
    (example, {"prompt": "a", "completion": " b"}),
    (example, {"messages": CHAT}),
    (preference, {"prompt": "a", "chosen": " b", "rejected": " c", "share": 0.5, "margin": 1}),
    (preference, {"chosen": CHAT, "rejected": [CHAT[0], CHAT[1] | {"content": "green"}]}),
    (prompt, {"prompt": CHAT[:1]}),
]


@pytest.mark.parametrize("block", range(6))
def test_rows_of_language_models(tmp_path: Path, block: int) -> None:
    file = tmp_path / "rows.jsonl"
    for seed in range(20 * block, 20 * block + 20):
        rng = random.Random(seed)
        read, row = ROWS[block]
        row = json.loads(json.dumps(row))
        for _ in range(rng.randrange(3)):  # 0: the row as it is
            holder, key = row, rng.choice(list(row))
            while isinstance(holder[key], dict | list) and holder[key] and rng.random() < 0.7:
                holder = holder[key]
                key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
            holder[key] = rng.choice(VALUES)
        whole = json.dumps(ROWS[block][1])
        content = f"{whole}\n{json.dumps(row, ensure_ascii='ud800' in json.dumps(row))}\n\n{whole}".encode()
        content = mutated(content, rng) if rng.random() < 0.5 else content
        file.write_bytes(content)
        found = outcome(lambda read=read: normalised(read_jsonl(file), read), "rows.jsonl")
        if found is not None:
            assert len(found) == lines_of(content), (seed, content)
            parts = [part for one in found for part in (one if isinstance(one, tuple) else (one,))]
            assert all(isinstance(part, str | list | float) for part in parts), (seed, parts)


MODES = {
    "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "jpeg": ("L", "RGB", "CMYK"),
    "gif": ("1", "L", "P", "RGB"),
    "webp": ("RGB", "RGBA"),
    "tiff": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"),
    "bmp": ("1", "L", "P", "RGB"),
}


def picture(mode: str, rng: random.Random) -> Image.Image:
    size = rng.randint(1, 40), rng.randint(1, 40)
    noise = np.random.Generator(np.random.PCG64(rng.randrange(2**32)))
    if mode in ("I;16", "I", "F"):
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        return Image.fromarray(noise.integers(0, 65536, size[::-1]).astype(kind))
    made = Image.fromarray(noise.integers(0, 256, (*size[::-1], 4), dtype=np.uint8))
    return made.convert("RGB").convert(mode) if mode not in ("RGBA", "LA") else made.convert(mode)


@pytest.mark.parametrize("kind", MODES)
def test_pictures(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"a.{kind}"
    for mode in MODES[kind]:
        for seed in range(8):
            rng = random.Random(f"{kind} {mode} {seed}")
            made = picture(mode, rng)
            clear = {"transparency": 3} if kind == "png" and mode in ("L", "P") and seed % 2 else {}
            saved = io.BytesIO()
            made.save(saved, kind, **clear)
            file.write_bytes(saved.getvalue())
            found = outcome(lambda: read_picture(file, 10_000), file.name)
            assert (found is None) == (mode in ("I", "F")), (mode, seed)
            if found is not None and kind in ("png", "tiff", "bmp") and not clear:
                assert np.abs(np.asarray(found, dtype=int) - as_shown(made)).max() <= 1, (mode, seed)
            file.write_bytes(mutated(saved.getvalue(), rng))
            found = outcome(lambda: read_picture(file, 300), file.name)
            assert found is None or (found.mode == "RGB" and 1 <= found.width * found.height <= 300)


def as_shown(made: Image.Image) -> np.ndarray:
    """(H, W, 3) of a picture on white, computed by hand."""
    values = np.asarray(made.convert("RGB") if made.mode in ("1", "P", "CMYK") else made).astype(float)
    if made.mode == "I;16":
        values = values / 257
    if values.ndim == 2:
        values = values[..., None]
    if made.mode in ("LA", "RGBA"):
        alpha = values[..., -1:] / 255
        values = values[..., :-1] * alpha + 255 * (1 - alpha)
    return np.broadcast_to(np.rint(values), (*values.shape[:2], 3))


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("override", "name", "content"),
    [
        ("data=image_text data.annotations={file}", "a.csv", b'image,caption\na.png,"one\nb.png,two\n'),
        ("data=image_text data.annotations={file}", "a.jsonl", b'{"image": "a.png", "caption": {"en": "a"}}'),
        ("data=jsonl data.path={file} model=sft", "a.jsonl", "{'text': 'caf\xe9'}".encode("latin-1")),
    ],
)
def test_programs_end_with_one_line(tmp_path: Path, override: str, name: str, content: bytes) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    command = [sys.executable, "train.py", *override.format(file=file).split(), f"hydra.run.dir={tmp_path}/run"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and str(file) in done.stderr and "Traceback" not in done.stderr, done.stderr
