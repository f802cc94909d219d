"""Reads the text files that users give: encodings, lines, JSON lines; what can't be read is named with file and line.

A line ends at \\n, \\r\\n or \\r and nowhere else: U+2028, U+0085 and form feeds are letters of a text
(`str.splitlines` cuts at them).
"""

import codecs
import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

_BIT = 1 << 20  # letters of a file at a time
_AHEAD = 400  # letters behind a value that tell that it isn't cut: a number may go on
_NO_UTF8 = "byte 0x{:02x} is no UTF-8; save the file as UTF-8 (perhaps it is Latin-1)"
_ESCAPED = re.compile("[\udc80-\udcff]")
_HALF = re.compile("[\ud800-\udfff]")
_SPACE = re.compile(r"[ \t\n\r]*")
# The longer marks first: that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_lines(
    file: str | Path, key: str | None = None, bad: Callable[[ValueError], None] | None = None
) -> Iterator[str]:
    """Lines of a text file without their ends: UTF-8, or what a byte order mark says; `key` is what gave the file, for
    messages.

    Args:
        bad: is told what is wrong with a line that is no text, in place of which an empty one comes; None: it is
            raised.

    Raises:
        ValueError: there is no such file, it can't be opened, or a line is no text (file and line are named).
    """
    path, name = Path(file).expanduser(), named(file, key)
    with _opened(path, name, "strict" if bad is None else "surrogateescape") as text:
        number = 0
        try:
            for number, line in enumerate(text, 1):
                if wrong := _no_text(line):
                    error = ValueError(f"{name}, line {number}: {wrong}")
                    if bad is None:
                        raise error
                    bad(error)
                    line = ""
                yield line.removesuffix("\n")
        except UnicodeDecodeError as error:
            raise ValueError(_undecodable(path, name, text.encoding, error)) from None
        except OSError as error:
            raise ValueError(f"{name}, line {number + 1}: can't be read ({error.strerror})") from None


def _no_text(line: str) -> str | None:
    """What makes a line that was read unfit for a text; bytes that are no UTF-8 have become surrogates."""
    if "\0" in line:
        return "a zero byte, so this is no UTF-8 text (is it UTF-16?)"
    if not line.isascii() and (byte := _ESCAPED.search(line)):
        return _NO_UTF8.format(ord(byte[0]) - 0xDC00)
    return None


def read_text(file: str | Path, key: str | None = None) -> str:
    """A text file as a whole, with \\n as line ends; errors as in `read_lines`."""
    return "\n".join(read_lines(file, key))


def lines_of(text: str) -> list[str]:
    """The lines of a text that isn't in a file, ended as a file's are."""
    return re.split(r"\r\n|\n|\r", text)


def json_lines(
    file: str | Path, key: str | None = None, bad: Callable[[ValueError], None] | None = None
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Number from 1, place for messages and object of every line that isn't blank.

    Args:
        bad: is told what is wrong with a line, which is then left out; None: it is raised.

    Raises:
        ValueError: as in `read_lines`, or a line is no JSON object.
    """
    for number, line in enumerate(read_lines(file, key, bad), 1):
        if line.strip():
            where = f"{named(file, key)}, line {number}"
            try:
                row = parse_json(line, where)
                if not isinstance(row, dict):
                    raise ValueError(f"{where}: a row must be an object with keys, not {kind_of(row)}")
            except ValueError as error:
                if bad is None:
                    raise
                bad(error)
            else:
                yield number, where, row


def json_items(file: str | Path, key: str | None = None, inside: str | None = None) -> Iterator[tuple[int, str, Any]]:
    """Number from 1, place for messages and value of every element of the list that a .json file holds, read bit by
    bit; a file that holds no list gives its value under the number 0.

    Args:
        inside: instead of the list that the file is, the first one under this name; what follows it isn't read.

    Raises:
        ValueError: as in `read_lines`, it is no JSON, or there is no such list.
    """
    path, name = Path(file).expanduser(), named(file, key)
    with _opened(path, name) as text:
        try:
            if inside is not None:
                yield from _elements(_list_under(inside, text, name), text, name, alone=False)
                return
            begun = ""
            while not begun and (bit := text.read(_BIT)):
                begun = bit.lstrip()
            if not begun.startswith("["):
                yield 0, name, parse_json(begun + text.read(), name)
                return
            yield from _elements(begun, text, name)
        except UnicodeDecodeError as error:
            raise ValueError(_undecodable(path, name, text.encoding, error)) from None
        except OSError as error:
            raise ValueError(f"{name}: can't be read ({error.strerror})") from None


def _list_under(inside: str, text: TextIO, name: str) -> str:
    """What was read of a text from the bracket on that begins the list under a name."""
    begins, held = re.compile(rf'(?<!\\)"{re.escape(inside)}"\s*:\s*\['), ""
    while bit := text.read(_BIT):
        held += bit
        if match := begins.search(held):
            return held[match.end() - 1 :]
        held = held[-len(inside) - _AHEAD :]
    raise ValueError(f"{name}: there is no list under {inside!r}")


def _elements(begun: str, text: TextIO, name: str, alone: bool = True) -> Iterator[tuple[int, str, Any]]:
    """`json_items` of a text that begins with a bracket; `begun` is what was read of it. `alone`: nothing may follow
    the list.
    """
    read = _JSON.raw_decode
    held, place, number, bit = begun, 1, 0, _BIT
    parted, over = True, False  # a comma or the bracket stands before `place`; nothing follows in the file
    while True:
        place, where = _SPACE.match(held, place).end(), f"{name}, row {number + 1}"
        mark = held[place : place + 1]
        if mark == "]" and (number == 0 or not parted):
            if alone and (held[place + 1 :] + text.read()).strip():
                raise ValueError(f"{name}: no JSON (something stands behind the list's end)")
            return
        if not parted and mark:
            if mark != ",":
                raise ValueError(f"{where}: no JSON (Expecting ',' delimiter)")
            place, parted = place + 1, True
            continue
        problem = "the file ends within the list"
        try:
            value, end = read(held, place)
            if over or end + _AHEAD < len(held):
                number, place, bit, parted = number + 1, end, _BIT, False
                yield number, where, value
                continue
        except json.JSONDecodeError as error:
            problem = error.msg if mark else problem
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise ValueError(f"{where}: no JSON ({reason})") from None
        if over:
            raise ValueError(f"{where}: no JSON ({problem})")
        more = text.read(bit)  # whatever is wrong may only be cut
        held, place, bit, over = held[place:] + more, 0, 2 * bit, not more


def named(file: str | Path, key: str | None = None) -> str:
    """A file for messages, with the key that gave it."""
    return f"{key}={file}" if key else str(file)


def parse_json(text: str, where: str) -> Any:
    """The value that a JSON text stands for.

    Raises:
        ValueError: the text is no JSON, is nested too deeply, or an object has a key twice; `where` begins the
            message.
    """
    try:
        return _JSON.decode(text)
    except (ValueError, RecursionError) as error:  # too many digits are a ValueError as well
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ValueError(f"{where}: no JSON ({reason})") from None


def kind_of(value: object) -> str:
    """What a JSON value is, for messages: `the number 3`, `a list`, `an object with the keys en, zh`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"the truth value {str(value).lower()}"
    if isinstance(value, int | float):
        return f"the number {str(value)[:20]}"
    if isinstance(value, str):
        return f"the text {shown(value)}" if value else "an empty text"
    if isinstance(value, dict):
        return f"an object with the keys {shown(', '.join(map(str, value)))[1:-1]}" if value else "an empty object"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)} (first: {kind_of(value[0])})" if value else "an empty list"
    return f"a {type(value).__name__}"


def meant(given: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Which of the given names are no known one but look like one that isn't given: {"promt": "prompt"}."""
    given, known = list(given), list(known)
    free, meanings = [name for name in known if name not in given], {}
    for name in given:
        close = difflib.get_close_matches(name.strip().lower(), free, n=1, cutoff=0.8) if name not in known else []
        if close:
            meanings[name] = close[0]
    return meanings


def lacking(given: Iterable[str], wanted: Iterable[str], known: Iterable[str] = ()) -> str:
    """The end of a message about a row without a field that it needs: what it has, and which of that was meant for
    what is wanted or known.
    """
    given = list(given)
    guesses = [f"; did you mean {name} by {said}?" for said, name in meant(given, [*wanted, *known]).items()]
    return f"only {', '.join(given) or 'nothing'}{''.join(guesses[:2])}"


def flaw(text: str) -> str | None:
    """What makes a text from JSON unfit for files and tokenizers, for messages; None: nothing."""
    half = _HALF.search(text)
    return None if half is None else f"half a letter (the lone surrogate {half[0]!a} at {half.start()})"


def shown(text: str, length: int = 60) -> str:
    """A text for messages: quoted, on one line, cut."""
    return repr(text[:length]) + "..." * (len(text) > length)


def _opened(file: Path, name: str, errors: str = "strict") -> TextIO:
    try:
        if not file.is_file():
            raise ValueError(f"{name}: {'that is no file' if file.exists() else 'there is no such file'}")
        with file.open("rb") as start:
            head = start.read(4)
        encoding = next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8")
        return file.open(encoding=encoding, errors=errors)
    except OSError as error:
        raise ValueError(f"{name}: can't be read ({error.strerror})") from None


def _undecodable(file: Path, name: str, encoding: str, error: UnicodeDecodeError) -> str:
    """The message about a file that isn't what it is taken for; the line is looked for once more."""
    if not encoding.startswith("utf-8"):
        return f"{name}: begins like {encoding.upper()}, but isn't ({error.reason})"
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as undecodable:
                return f"{name}, line {number}: {_NO_UTF8.format(line[undecodable.start])}"
    return f"{name}: is no UTF-8 ({error.reason})"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands there twice")
    return fields


_JSON = json.JSONDecoder(object_pairs_hook=_object)
