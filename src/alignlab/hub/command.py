"""`alignlab fetch plan | get | verify | from-git`: the command line of this room."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `--help` imports none of it
    from alignlab.hub.endpoint import Endpoint
    from alignlab.hub.fetch import Plan
    from alignlab.hub.lock import Lock, Locked

LISTS = (Path("conf/assets"), Path(__file__).parents[1] / "conf" / "assets")
FAILED = 3  # exit code: some repository isn't here as it should be


def add(commands: "argparse._SubParsersAction") -> None:
    """Adds the command to a parser."""
    fetch = commands.add_parser(
        "fetch",
        help="models and data sets from the hub, verified",
        description="Downloads that go on after a kill, are hashed byte by byte and pinned to a commit in a lock file.",
    )
    which = fetch.add_subparsers(required=True, metavar="plan | get | verify | from-git")
    for name, about in (
        ("plan", "what would come: files, bytes, licence, gate, free disk; nothing is fetched"),
        ("get", "fetch; the same command goes on where it was stopped"),
    ):
        command = which.add_parser(name, help=about, description=about)
        _assets(command)
        _network(command)
        command.add_argument("--update", action="store_true", help="take today's commits, not those of the lock file")
        command.set_defaults(run=_plan if name == "plan" else _get)
    verify = which.add_parser("verify", help="hash what is here against the lock file, without a network")
    verify.add_argument("names", nargs="*", metavar="NAME", help="repositories of the lock file; default: all")
    verify.add_argument("--repair", action="store_true", help="fetch again what is missing or damaged")
    _network(verify)
    verify.set_defaults(run=_verify)
    clone = which.add_parser("from-git", help="fetch the files that the LFS pointers of a clone stand for")
    clone.add_argument("clone", type=Path)
    _network(clone)
    clone.set_defaults(run=_from_git)


def _assets(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="organisation/name[@revision], datasets/organisation/name, a list of conf/assets, or a YAML file",
    )
    command.add_argument("--include", nargs="+", metavar="PATTERN", help="only these files, e.g. '*.json'")
    command.add_argument("--exclude", nargs="+", metavar="PATTERN")
    command.add_argument("--whole", action="store_true", help="every file, not only what from_pretrained needs")
    command.add_argument("--pickle", action="store_true", help="take weights that only a pickle holds")
    command.add_argument("--code", action="store_true", help="take Python files of model repositories too")
    command.add_argument("--dest", type=Path, help="a plain folder; default: the cache that from_pretrained reads")


def _network(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--endpoint",
        nargs="+",
        metavar="URL",
        help="servers, asked in this order; default: HF_ENDPOINT or the official one",
    )
    command.add_argument("--lock", type=Path, default=Path("assets.lock.json"), metavar="FILE")
    command.add_argument("--workers", type=int, default=8, help="files at a time")
    command.add_argument("--tries", type=int, default=5, help="of each endpoint for each file")
    command.add_argument("--timeout", type=float, default=30, help="seconds without a byte")
    command.add_argument(
        "--deadline", type=float, default=float("inf"), help="seconds after which nothing is tried again"
    )
    command.add_argument("--json", type=Path, metavar="FILE", help="the table as JSON")


def _plans(options: argparse.Namespace) -> "tuple[list[Plan], list[Endpoint], Lock]":
    from alignlab.hub import fetch
    from alignlab.hub.assets import gather

    given = ("include", "exclude", "whole", "pickle", "code")
    settings = {key: tuple(v) if isinstance(v := getattr(options, key), list) else v for key in given}
    assets = gather(options.names, LISTS, settings)
    servers, lock, patience = _tools(options)
    return fetch.plan(assets, servers, lock, options.dest, update=options.update, patience=patience), servers, lock


def _tools(options: argparse.Namespace) -> tuple:
    from alignlab.hub.download import Patience
    from alignlab.hub.endpoint import endpoints
    from alignlab.hub.lock import Lock

    for name in ("workers", "tries", "timeout"):
        if getattr(options, name) <= 0:
            raise ValueError(f"--{name} is {getattr(options, name)}; it must be above 0")
    servers = endpoints(options.endpoint or [], options.timeout, options.workers)
    return servers, Lock(options.lock), Patience(options.tries, options.deadline)


def _plan(options: argparse.Namespace) -> int:
    from alignlab.hub.fetch import check_room

    plans, _, _ = _plans(options)
    _table(plans, options.json, files=True)
    check_room(plans, options.dest)
    return FAILED if any(plan.error for plan in plans) else 0


def _get(options: argparse.Namespace) -> int:
    from alignlab.hub.download import Patience
    from alignlab.hub.fetch import check_room, get
    from alignlab.hub.progress import Progress

    plans, servers, lock = _plans(options)
    check_room(plans, options.dest)
    patience = Patience(options.tries, options.deadline)
    with Progress(sum(plan.size for plan in plans if not plan.error)) as progress:
        get(plans, servers, lock, options.dest, workers=options.workers, patience=patience, count=progress)
    _table(plans, options.json)
    return FAILED if any(plan.error for plan in plans) else 0


def _verify(options: argparse.Namespace) -> int:
    from alignlab.hub.fetch import repair
    from alignlab.hub.verify import verify

    servers, lock, patience = _tools(options)
    entries = _entries(lock, options.names)
    findings = [finding for entry in entries for finding in verify(entry)]
    wrong = [f for f in findings if f.state not in ("ok", "extra")]
    for finding in findings:
        if finding.state != "ok":
            print(f"{finding.state:8} {finding.repo}: {finding.path}")
    count = Counter(finding.state for finding in findings)
    print(f"{count['ok']} files ok, {len(wrong)} not, {count['extra']} extra")
    if options.json:
        options.json.write_text(json.dumps([f._replace(file=str(f.file))._asdict() for f in findings], indent=1))
    if wrong and options.repair:
        errors = [error for entry in entries if (error := repair(entry, servers, patience, options.workers))]
        for error in errors:
            print(error, file=sys.stderr)
        print("repaired" if not errors else "not everything could be repaired")
        return FAILED if errors else 0
    return FAILED if wrong else 0


def _entries(lock: "Lock", names: Sequence[str]) -> "list[Locked]":
    known = {entry.asset.name for entry in lock.entries.values()}
    if not known:
        raise ValueError(f"{lock.file} has no repositories: `alignlab fetch get NAME` writes it")
    for name in names:
        if name not in known:
            raise ValueError(f"{lock.file} has no {name}; it has {', '.join(sorted(known))}")
    return [entry for entry in lock.entries.values() if not names or entry.asset.name in names]


def _from_git(options: argparse.Namespace) -> int:
    from alignlab.hub.errors import HubError
    from alignlab.hub.from_git import smudge

    servers, _, patience = _tools(options)
    try:
        done = smudge(options.clone, servers, patience, lambda size: None)
    except HubError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    print("\n".join(done) if done else f"{options.clone} has no pointers")
    return 0


def _table(plans: "Sequence[Plan]", file: Path | None, files: bool = False) -> None:
    from rich.console import Console
    from rich.table import Table

    rows = [plan.row() for plan in plans]
    table = Table(*(rows[0] if rows else ()))
    for row in rows:
        table.add_row(*map(str, row.values()))
    console = Console(soft_wrap=not sys.stdout.isatty())
    console.print(table)
    for plan in plans:
        if plan.error:
            print(f"error: {plan.asset.name}: {plan.error}", file=sys.stderr)
        elif files:
            console.print(
                "\n".join(f"  {f.size:>14,}  {plan.asset.name}/{f.path}" for f in plan.todo),
                markup=False,
                highlight=False,
            )
    if file is not None:
        file.write_text(json.dumps(rows, indent=1))
