"""Reads the signature of a class or function by importing it: what its source file doesn't say plainly."""

import importlib
import inspect
import typing
from collections.abc import Iterable


class NotFound(LookupError):
    """The dotted path names nothing; `names` are the ones next to it."""

    def __init__(self, path: str, names: Iterable[str]) -> None:
        super().__init__(path)
        self.names = sorted(names)


def imported_signature(path: str) -> inspect.Signature:
    """Signature of the class or function at a dotted path; annotations are typing objects, `Any` where unknown.

    Raises:
        NotFound: nothing is there.
    """
    parts = path.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            thing: object = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            if not hasattr(thing, part):
                raise NotFound(path, [name for name in dir(thing) if not name.startswith("_")])
            thing = getattr(thing, part)
        return _with_types(thing)
    raise NotFound(path, [])


def _with_types(thing: object) -> inspect.Signature:
    try:
        live = inspect.signature(thing, eval_str=True)  # type: ignore[arg-type]
    except NameError:  # names imported for type checkers only
        live = inspect.signature(thing)  # type: ignore[arg-type]
    empty = inspect.Parameter.empty
    return live.replace(
        parameters=[
            p.replace(annotation=typing.Any if p.annotation is empty or isinstance(p.annotation, str) else p.annotation)
            for p in live.parameters.values()
        ]
    )
