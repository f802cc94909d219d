"""How fast and in how much memory `alignlab corpus clean` goes over real English, and datatrove on the same steps.

    python benchmarks/corpus_cleaning.py write texts.jsonl --megabytes 160    # documentation that lies on this machine
    python benchmarks/corpus_cleaning.py ours texts.jsonl                    # the whole default chain, files written
    python benchmarks/corpus_cleaning.py sides texts.jsonl --kilobytes 500   # beside datatrove, in turns
    python benchmarks/corpus_cleaning.py planted                             # recall and precision of near duplicates

Seconds are of the processor, not of the clock, so that other work on the machine counts less. `sides` needs datatrove
0.10 with its word tokenizer for English (spacy).
"""

import argparse
import ast
import gzip
import json
import random
import resource
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from alignlab.corpus.cleaning import clean, plan_of
from alignlab.corpus.settings import chain_of
from alignlab.corpus.steps.language import identifier

SUPPORT = Path(__file__).resolve().parents[1] / "tests" / "support"
SAME = ["schema", "quality", "near_dup", "pii"]  # steps that datatrove has too
PIECE, LEAST = 5000, 200  # letters of a document


def texts() -> Iterator[str]:
    """Documents of about 5,000 letters: /usr/share/doc, and docstrings of installed packages."""
    for file in sorted(Path("/usr/share/doc").rglob("*")) + sorted(Path(sysconfig.get_path("purelib")).rglob("*")):
        try:
            if file.suffix == ".py":
                nodes = ast.walk(ast.parse(file.read_text()))
                kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
                found = [text for node in nodes if isinstance(node, kinds) and (text := ast.get_docstring(node))]
            elif file.is_file() and (
                file.suffix in (".txt", ".md", ".rst", ".html", ".gz") or file.name == "copyright"
            ):
                opened = gzip.open(file) if file.suffix == ".gz" else file.open("rb")
                with opened:
                    found = [opened.read(3_000_000).decode()]
            else:
                continue
        except (OSError, ValueError, SyntaxError, EOFError, RecursionError):
            continue
        for text in found:
            piece = ""
            for paragraph in text.split("\n\n"):
                piece += paragraph + "\n\n"
                if len(piece) > PIECE:
                    yield piece.strip()
                    piece = ""
            if len(piece) > LEAST:
                yield piece.strip()


def endless() -> Iterator[str]:
    """The same, and when they have run out documents of their paragraphs drawn at random."""
    rng, paragraphs, length = random.Random(0), [], 0
    for text in texts():
        paragraphs += [part for part in text.split("\n\n") if LEAST < len(part) < PIECE]
        length += len(text.encode())
        yield text
    print(f"{length / 1e6:.0f} MB are as they were; what follows is made of {len(paragraphs)} paragraphs of theirs")
    while True:
        drawn = [rng.choice(paragraphs)]
        while sum(map(len, drawn)) < PIECE:
            drawn.append(rng.choice(paragraphs))
        yield "\n\n".join(drawn)


def write(file: Path, megabytes: float) -> None:
    """Texts as JSONL, until there is enough of it."""
    with file.open("w", encoding="utf-8") as out:
        for number, text in enumerate(endless()):
            out.write(json.dumps({"id": number, "text": text}, ensure_ascii=False) + "\n")
            if out.tell() > megabytes * 1e6:
                break
        print(f"{file}: {number + 1} documents, {out.tell() / 1e6:.0f} MB")


def ours(file: Path) -> None:
    """The default chain over a whole file."""
    size, start = file.stat().st_size / 1e6, time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        report = clean(plan_of([file]), Path(folder) / "out")
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"{size:.0f} MB, {report['documents']}: {size / seconds:.1f} MB/s of processor time, peak {peak:.0f} MB")


def _ours(lines: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "in.jsonl"
        file.write_text("".join(lines), encoding="utf-8")
        start = time.process_time()
        words = ("quality.preset=en_web", "pii.kinds=[email,ip]")
        clean(plan_of([file], chain=lambda kind: chain_of(kind, SAME, words=words)), Path(folder) / "out")
        return time.process_time() - start


class Datatrove:
    """The same, by the classes of its pipeline: filters, signatures, masks; without its buckets and clusters."""

    def __init__(self) -> None:
        from datatrove.data import Document
        from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
        from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
        from datatrove.pipeline.formatters import PIIFormatter

        self._document = Document
        self._filters = [GopherRepetitionFilter(), GopherQualityFilter()]
        self._signature = MinhashDedupSignature(tempfile.mkdtemp(), MinhashConfig(n_grams=5))
        self._masks = PIIFormatter()
        self.seconds(['{"text": "a first one, for what is read once"}'])

    def seconds(self, lines: list[str]) -> float:
        start, kept = time.process_time(), []
        for line in lines:
            document = self._document(text=json.loads(line)["text"], id="0")
            if all(one.filter(document) is True for one in self._filters):
                self._signature.get_signature(self._signature.get_shingles(document.text))
                kept.append(json.dumps({"text": self._masks.format(document.text)}))
        return time.process_time() - start


def sides(file: Path, kilobytes: float, turns: int) -> None:
    """Both in turns on the same lines, anew each turn."""
    peer, rates = Datatrove(), {"alignlab": [], "datatrove": []}
    with file.open(encoding="utf-8") as source:
        rows = list(islice(source, 20_000))
    _ours(rows[:50])
    for turn in range(turns):
        rng, lines, size = random.Random(turn), [], 0
        while size < kilobytes * 1e3:
            lines.append(rng.choice(rows))
            size += len(lines[-1].encode())
        rates["alignlab"].append(size / 1e6 / _ours(lines))
        rates["datatrove"].append(size / 1e6 / peer.seconds(lines))
        print(f"turn {turn}: {', '.join(f'{name} {rate[-1]:.3f} MB/s' for name, rate in rates.items())}", flush=True)
    for name, rate in rates.items():
        print(f"{name}: median {statistics.median(rate):.3f} MB/s ({min(rate):.3f} to {max(rate):.3f})")


def planted() -> None:
    """1,000 near and 1,000 other pairs of each kind, labels by plain sets."""
    sys.path.insert(0, str(SUPPORT))
    from planted_texts import HAN, changed_letter, english_words, jaccard, planted, replaced_unit

    words, han = english_words(), list(HAN)
    long = [word for word in words if len(word) > 2]
    cases = {
        "English, 60 to 200 words": (words, (60, 200), " ", replaced_unit(words)),
        "captions of 5 words": (long, (5, 5), " ", changed_letter),
        "Chinese, 60 to 200 characters": (han, (60, 200), "", replaced_unit(han)),
        "Chinese captions, 9 to 15 characters": (han, (9, 15), "", replaced_unit(han)),
    }
    for name, (units, lengths, joint, change) in cases.items():
        make = lambda rng, units=units, lengths=lengths: [rng.choice(units) for _ in range(rng.randint(*lengths))]  # noqa: E731
        near = planted(make, joint, 1000, 1, (0.7, 0.95), change)
        apart = planted(make, joint, 1000, 2, (0.3, 0.6999), change)
        rows = [text for pair in near + apart for text in pair]
        random.Random(3).shuffle(rows)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "in.jsonl"
            file.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
            clean(plan_of([file], chain=lambda kind: chain_of(kind, ["schema", "near_dup"])), Path(folder) / "out")
            lost = (Path(folder) / "out" / "dropped.jsonl").read_text().splitlines()
        gone = {json.loads(json.loads(row)["row"])["text"] for row in lost}
        found, wrong = (sum(one in gone or other in gone for one, other in pairs) for pairs in (near, apart))
        low = [pair for pair in near if jaccard(*pair) < 0.75]
        least = sum(one in gone or other in gone for one, other in low) / len(low)
        print(
            f"{name}: recall {found / 1000:.3f}, precision {found / (found + wrong):.3f}, at 0.70 to 0.75 {least:.3f}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["write", "ours", "sides", "planted"])
    parser.add_argument("file", type=Path, nargs="?", default=Path("texts.jsonl"))
    parser.add_argument("--megabytes", type=float, default=160)
    parser.add_argument("--kilobytes", type=float, default=500)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    if options.what == "write":
        write(options.file, options.megabytes)
    elif options.what == "ours":
        print("languages by fastText" if identifier() is not None else "languages by script")
        ours(options.file)
    elif options.what == "sides":
        sides(options.file, options.kilobytes, options.turns)
    else:
        planted()
