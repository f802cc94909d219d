"""`alignlab shards pack | check | inspect`: tar shards of pictures with what is said of them."""

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_KEY = "SHARDS"


def add(commands: "argparse._SubParsersAction") -> None:
    """Adds the command to a parser."""
    shards = commands.add_parser(
        "shards",
        help="tar shards of pictures: pack lists, check, inspect",
        description="Shards in the manner of webdataset, which data=shards trains on (docs/shards.md).",
    )
    which = shards.add_subparsers(required=True, metavar="pack | check | inspect")
    about = "a list of captions, questions or judged sentences, a folder, or other shards, as shards"
    pack = which.add_parser("pack", help=about, description=about.capitalize() + "; broken pictures are left out.")
    pack.add_argument("list", help="what data.annotations takes; or hub:NAME, a data set of the hub (extra: rlhf)")
    pack.add_argument("folder", type=Path, help="where 00000.tar, 00001.tar, ... are written")
    pack.add_argument("--kind", choices=list(_ROWS), default="captions", help="default: captions")
    pack.add_argument("--image-dir", help="where relative paths start; default: the folder of the list")
    pack.add_argument("--megabytes", type=int, default=500, help="of a shard; default: 500")
    pack.add_argument("--max-side", type=int, metavar="PIXELS", help="larger pictures are reduced, as JPEG")
    pack.add_argument("--shuffle", type=int, metavar="SEED", help="in a random order; default: the list's")
    pack.add_argument("--split", default="train", help="of a data set of the hub; default: train")
    pack.add_argument("--config", help="of a data set of the hub")
    pack.add_argument("--max-skipped", type=int, default=1000, help="rows and pictures left out at most")
    pack.set_defaults(run=_pack)
    for name, about in (
        ("check", "decode every picture and read every text; exit code 3 where something is wrong"),
        ("inspect", "how many samples of what, sizes, the first ones; nothing is decoded"),
    ):
        command = which.add_parser(name, help=about, description=about)
        command.add_argument("shards", help="a folder, a .tar, or a pattern: 'shards/{000..012}.tar'")
        command.add_argument("--json", type=Path, metavar="FILE", help="the same as JSON")
        command.set_defaults(run=_check if name == "check" else _inspect)


def _captions(place: str, image_dir: str | None, bad: Any) -> Iterator[tuple[str, list, dict]]:
    from alignlab.data.image_text.annotations import read_annotations

    for split, pictures in read_annotations(place, image_dir, "LIST", bad).items():
        for one in pictures:
            yield one.where, [one.path], {"captions": list(one.captions), "split": split, "name": one.name}


def _questions(place: str, image_dir: str | None, bad: Any) -> Iterator[tuple[str, list, dict]]:
    from alignlab.data.picture_tasks.question_lists import question_rows

    for row, pictures, name in _task_rows(question_rows, place, image_dir, bad):
        answers = {answer: round(share, 6) for answer, share in row.told}
        said = {"question": row.text, "answers": answers, "kind": row.kind, "split": row.split, "name": name}
        yield row.where, pictures, said


def _judged(place: str, image_dir: str | None, bad: Any) -> Iterator[tuple[str, list, dict]]:
    from alignlab.data.picture_tasks.judged_lists import judged_rows

    for row, pictures, name in _task_rows(judged_rows, place, image_dir, bad):
        yield row.where, pictures, {"sentence": row.text, "label": row.told, "split": row.split, "name": name}


def _task_rows(read: Any, place: str, image_dir: str | None, bad: Any) -> Iterator[tuple[Any, list, str]]:
    from alignlab.data.image_text.list_mixture import ListOf
    from alignlab.data.pictures.members import Member

    folder = Path(place).expanduser().parent if image_dir is None else Path(image_dir).expanduser()
    for row in read(ListOf(place, image_dir, key="LIST"), bad):
        pictures = [one if isinstance(one, Member) else folder / one for one in row.pictures]
        yield row, pictures, " ".join(one.name if isinstance(one, Member) else one for one in row.pictures)


_ROWS = {"captions": _captions, "questions": _questions, "judged": _judged}


def _pack(options: argparse.Namespace) -> None:
    from alignlab.data.shards.hub_rows import PREFIX, hub_rows  # after --help
    from alignlab.data.shards.packing import pack, said
    from alignlab.data.skipping import Skipped

    bad = Skipped(options.max_skipped)
    if options.list.startswith(PREFIX):  # all columns are kept, under their names
        rows = said(hub_rows(options.list, options.split, options.config))
    else:
        rows = said(_ROWS[options.kind](options.list, options.image_dir, bad))
    size, seed = 1_000_000 * options.megabytes, options.shuffle
    done = pack(rows, options.folder, bad, shard_bytes=size, max_side=options.max_side, seed=seed)
    for reason in bad.reasons:
        print(f"left out: {reason}")
    numbers = f"{_number(len(done.files), 'shard')}, {_number(done.samples, 'sample')}, {done.bytes / 1e6:.1f} MB"
    print(f"{options.folder}: {numbers}")
    if bad.reasons:
        print(f"{_number(len(bad.reasons), 'broken row or picture', 'broken rows and pictures')} left out")


def _inspect(options: argparse.Namespace) -> None:
    from alignlab.data.shards.reading import samples, shards_of  # after --help

    rows, first, suffixes = [], [], Counter()
    for shard in shards_of(options.shards, _KEY):
        number = pictures = most = 0
        for sample in samples(shard, _KEY):
            number, pictures = number + 1, pictures + len(sample.pictures)
            most = max([most, *(picture.size for picture in sample.pictures)])
            suffixes.update(sample.suffixes)
            if len(first) < 3:
                first.append({"key": sample.key, "members": list(sample.suffixes), "row": sample.row})
        size = shard.stat().st_size
        rows.append({"shard": shard.name, "samples": number, "pictures": pictures, "bytes": size, "largest": most})
    print(f"{'shard':24} {'samples':>9} {'pictures':>9} {'MB':>9} {'largest picture, kB':>20}")
    for row in rows:
        numbers = f"{row['samples']:9} {row['pictures']:9} {row['bytes'] / 1e6:9.1f} {row['largest'] / 1e3:20.1f}"
        print(f"{row['shard']:24} {numbers}")
    print(f"in all {_number(sum(row['samples'] for row in rows), 'sample')}; members: {dict(suffixes.most_common())}")
    for sample in first:
        print(json.dumps(sample, ensure_ascii=False)[:300])
    _written(options.json, {"shards": rows, "members": dict(suffixes), "first": first})


def _check(options: argparse.Namespace) -> int:
    from alignlab.data.image_text.picture_cache import read_picture  # after --help
    from alignlab.data.recipes.pictures import WHOLE
    from alignlab.data.shards.reading import samples, shards_of

    wrong: list[str] = []
    good, keys = 0, Counter()
    for shard in shards_of(options.shards, _KEY):
        for sample in samples(shard, _KEY, lambda error: wrong.append(str(error))):
            before = len(wrong)
            keys[f"{shard}/{sample.key}"] += 1
            if keys[f"{shard}/{sample.key}"] == 2:
                wrong.append(f"{sample.where}: the shard holds another sample of this key")
            if not sample.pictures:
                wrong.append(f"{sample.where}: there is no picture")
            if not sample.row:
                wrong.append(f"{sample.where}: nothing is said of it (.json or .txt)")
            for picture in sample.pictures:
                try:
                    read_picture(picture, WHOLE)
                except ValueError as error:
                    wrong.append(f"{sample.where}: {error}")
            good += len(wrong) == before
    for line in wrong:
        print(line)
    print(f"{good} samples are whole, {len(wrong)} things are wrong")
    _written(options.json, {"whole": good, "wrong": wrong})
    return 3 if wrong else 0


def _number(number: int, one: str, several: str | None = None) -> str:
    return f"{number} {one if number == 1 else several or f'{one}s'}"


def _written(file: Path | None, content: dict[str, Any]) -> None:
    from alignlab.files.writing import write_text

    if file is not None:
        write_text(file, json.dumps(content, ensure_ascii=False, indent=2) + "\n")
