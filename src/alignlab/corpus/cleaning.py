"""A corpus through its chain of steps: three passes, progress, going on where a killed run stopped."""

import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from hashlib import blake2b
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from alignlab.corpus.counting import report_of
from alignlab.corpus.looking import Plan, look
from alignlab.corpus.outcome import DATA, Outcome
from alignlab.corpus.pages import page_of
from alignlab.corpus.resolving import Corpus, resolve
from alignlab.corpus.settings import Chain, chain_of
from alignlab.corpus.sources import PART, Part, Reader, Source, detected, parts_of, sources_of
from alignlab.files.writing import write_text
from alignlab.reports.page import render

_WORK = ".corpus"
Say = Callable[[int, int], None]


def plan_of(
    places: Sequence[Path],
    references: Sequence[Path] = (),
    kind: str | None = None,
    whole_files: bool = False,
    without: Path | None = None,
    chain: Callable[[str], Chain] = chain_of,
) -> Plan:
    """What is to be done with files and folders; a kind that isn't given is that of the first file's columns."""
    sources = sources_of(places, references, whole_files, without)
    kind = kind or detected(next(source for source in sources if not source.reference))
    for source in sources:
        Reader(source, kind)  # a header that isn't understood is said before anything begins
    return Plan(kind, chain(kind), sources)


def clean(
    plan: Plan, target: Path, *, cleaned: bool = True, jobs: int = 1, part: int = PART, say: Say | None = None
) -> dict[str, Any]:
    """Writes cleaned files into `target/data`, dropped.jsonl, report.json and report.html; gives the report.

    What was found of each part lies in `target/.corpus` meanwhile, and is gone on with if the same command is given
    again. The result doesn't depend on `jobs`, nor on interruptions.

    Args:
        cleaned: False: only the report and dropped.jsonl.
        jobs: processes.
        part: bytes looked at by one process at a time.
        say: is told how many parts of how many are done.

    Raises:
        ValueError: `target` holds results of other inputs or settings, or is one of the inputs' folders.
        OSError: no room, for example; what is done is kept.
    """
    parts = [one for number, source in enumerate(plan.sources) for one in parts_of(number, source, part)]
    identity = _identity(plan, parts, cleaned)
    _refuse_inputs(plan.sources, target)
    if (known := _known(target / "report.json")) is not None:
        if known.get("identity") == identity:
            return known
        raise ValueError(f"{target} holds the results of other inputs or settings; name another folder, or remove it")
    work = target / _WORK
    if (said := work / "identity").exists() and said.read_text() != identity:
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    write_text(said, identity)
    _look(plan, parts, work, jobs, say or (lambda done, of: None))
    references = sum(plan.sources[one.source].reference for one in parts)
    corpus = Corpus(work, len(parts), references)
    resolve(corpus, plan)
    outcome = Outcome(plan, parts, corpus)
    outcome.write(target, cleaned)
    report = {"identity": identity, **report_of(plan, parts, corpus, outcome)}
    write_text(target / "report.html", render(page_of(report)))
    write_text(target / "report.json", json.dumps(report, ensure_ascii=False, indent=1) + "\n")
    shutil.rmtree(work)
    return report


def _look(plan: Plan, parts: Sequence[Part], work: Path, jobs: int, say: Say) -> None:
    left = [number for number in range(len(parts)) if not (work / f"{number:06d}.npz").exists()]
    done = len(parts) - len(left)
    say(done, len(parts))
    if jobs == 1 or len(left) < 2:
        for number in left:
            look(plan, parts[number], number, work)
            done += 1
            say(done, len(parts))
        return
    with ProcessPoolExecutor(min(jobs, len(left)), get_context("spawn")) as pool:
        waiting = [pool.submit(look, plan, parts[number], number, work) for number in left]
        try:
            for one in as_completed(waiting):
                one.result()
                done += 1
                say(done, len(parts))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _identity(plan: Plan, parts: Sequence[Part], cleaned: bool) -> str:
    """A hash of what the results depend on: inputs by place, size and time, kind, steps, settings."""
    files = [[str(one.file.resolve()), one.file.stat().st_size, one.file.stat().st_mtime_ns] for one in plan.sources]
    told = json.dumps([files, [one.reference for one in plan.sources], plan.kind, plan.chain, list(parts), cleaned])
    return blake2b(told.encode(), digest_size=16).hexdigest()


def _refuse_inputs(sources: Sequence[Source], target: Path) -> None:
    for source in sources:
        if (target / DATA / source.name).resolve() == source.file.resolve():
            raise ValueError(f"{target} would overwrite {source.file}; name another folder")


def _known(file: Path) -> dict[str, Any] | None:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
