"""Rows of .csv and .tsv files: a line is a row, whichever of the usual separators stands in its header."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

from alignlab.files.text import read_lines, shown

_SEPARATORS = {".csv": (",", ";", "\t"), ".tsv": ("\t", ",", ";")}
SUFFIXES = tuple(_SEPARATORS)


def read_table(
    file: Path,
    key: str,
    understood: Callable[[list[str]], bool],
    wanted: str,
    bad: Callable[[ValueError], None] | None = None,
) -> Iterator[tuple[int, str, dict[str, str]]]:
    """Line number, place for messages and fields by column of every row; names of columns in lower case, unnamed
    columns left out.

    The separator is the first of comma, semicolon and tab (a .tsv file: tab first) under which `understood` accepts
    the header; `wanted` says in messages what that is. Quotation marks are doubled inside quoted fields, and a field
    lies on one line: an unclosed mark would swallow rows. `bad` is told what is wrong with a row below the header,
    which is then left out; None: it is raised.

    Raises:
        ValueError: the header isn't understood or names two columns alike; a row has more or fewer fields than it, or
            an unclosed quotation mark.
    """
    header, separator = None, ""
    for number, line in enumerate(read_lines(file, key, bad), 1):
        if not line.strip():
            continue
        where = f"{key}={file}, line {number}"
        if header is None:
            header, separator = table_header(line, file.suffix.lower(), where, understood, wanted)
            continue
        try:
            fields = table_fields(line, separator, where, len(header))
        except ValueError as error:
            if bad is None:
                raise
            bad(error)
        else:
            yield number, where, {name: field for name, field in zip(header, fields, strict=True) if name}


def table_fields(line: str, separator: str, where: str, columns: int) -> list[str]:
    """Fields of a row. Raises ValueError, beginning with `where`, unless there are as many as columns."""
    fields = _fields(line, separator, where)
    if len(fields) != columns:
        remedy = (
            f"a field that holds the separator {separator!r} stands in quotation marks"
            if len(fields) > columns
            else "an empty field keeps its separator"
        )
        raise ValueError(f"{where}: {len(fields)} fields, but the header has {columns}: {remedy}")
    return fields


def table_header(
    line: str, suffix: str, where: str, understood: Callable[[list[str]], bool], wanted: str
) -> tuple[list[str], str]:
    """Names of columns in lower case, and the separator, of a header; arguments and errors as in `read_table`."""
    for separator in _SEPARATORS[suffix]:
        try:
            names = [name.strip().lower() for name in _fields(line, separator, where)]
        except ValueError:  # quoted, and another separator
            continue
        if understood(names):
            twice = next((name for name in names if name and names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"{where}: two columns are called {twice!r}; keep one")
            return names, separator
    raise ValueError(f"{where}: the header reads {shown(line)}; {wanted}")


def _fields(line: str, separator: str, where: str) -> list[str]:
    if len(line) > csv.field_size_limit():
        csv.field_size_limit(len(line))
    try:
        return next(csv.reader([line], delimiter=separator, strict=True, skipinitialspace=True))
    except csv.Error as error:
        raise ValueError(
            f"{where}: a field begins with a quotation mark and isn't closed by one at its end ({error}); "
            'marks inside are doubled (""), and a field lies on one line (texts with line breaks: .jsonl)'
        ) from None
