"""Values out of a pickle that holds nothing but plain ones: numbers, texts, lists, tuples, dicts, sets.

A pickle is a program; whatever it would have to import for anything else is refused, so that none of it runs.
"""

import pickle
from pathlib import Path
from typing import Any


def read_plain_pickle(file: str | Path, key: str) -> Any:
    """The value in a file, written by Python 2 or 3; texts of Python 2 are UTF-8.

    Args:
        key: what gave the file, for messages.

    Raises:
        ValueError: there is no such file, it is no pickle, or it names a class or a function.
    """
    path = Path(file).expanduser()
    try:
        with path.open("rb") as content:
            return _Plain(content, encoding="utf-8", errors="replace").load()
    except FileNotFoundError:
        raise ValueError(f"{key}={file}: there is no such file") from None
    except OSError as error:
        raise ValueError(f"{key}={file}: can't be read ({error.strerror})") from None
    except Exception as error:  # whatever a damaged pickle leads to
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{key}={file}: can't be read as a pickle of plain values: {reason}; if you trust it, save it as JSON: "
            'python -c \'import json, pickle, sys; json.dump(pickle.load(open(sys.argv[1], "rb")), '
            'open(sys.argv[2], "w"))\' refs.p refs.json'
        ) from None


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}, and taking that could run code")
