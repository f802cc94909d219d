"""Reads the signature of a class or function from its source file, without importing it.

Checking a config against signatures would otherwise import torch, lightning and transformers (5 to 10 seconds) only to
say that a key is misspelt. What the source doesn't say plainly (dataclasses, functions made at run time) is imported
after all.
"""

import inspect
from collections.abc import Mapping
from functools import cache

from alignlab.configs.live_signatures import NotFound, imported_signature
from alignlab.configs.sources import OF, joined, longest, source


@cache
def signature(path: str) -> inspect.Signature:
    """Signature of the class or function at a dotted path, `self` left out; annotations are typing objects, `Any`
    where unknown.

    Raises:
        NotFound: nothing is there.
    """
    module, rest = longest(path)
    if module is not None and len(rest) == 1:
        described = module.callable(rest[0])
        if described is not None:
            return described
        if module.complete and rest[0] not in module.names():
            raise NotFound(path, module.names())
    return imported_signature(path)


def part_of(path: str) -> str | None:
    """The parameter `x` of a class or function that has `**of_x`: the dotted path of a part, whose parameters lie
    beside those of the whole.
    """
    last = next(reversed(signature(path).parameters.values()), None)
    named = last is not None and last.kind is inspect.Parameter.VAR_KEYWORD and last.name.startswith(OF)
    return last.name.removeprefix(OF) if named else None


def ancestors(path: str) -> set[str]:
    """The classes that the class at a dotted path derives from, as they are written; empty for what is no class."""
    module, rest = longest(path)
    return module.ancestors(rest[0]) if module is not None and len(rest) == 1 else set()


def signature_of(node: Mapping[str, object]) -> inspect.Signature:
    """Signature of a node's `_target_`, with the parameters of its part in place of `**of_x`.

    `PairDataModule(source="alignlab...EmojiScenePairs", max_sprites=3)` takes what `EmojiScenePairs` takes, but for
    what it takes itself.

    Raises:
        NotFound: nothing is at the target's path or the part's.
    """
    whole = signature(str(node["_target_"]))
    part = part_of(str(node["_target_"]))
    if part is None or not isinstance(node.get(part), str):
        return whole
    return joined(list(whole.parameters.values())[:-1], signature(str(node[part])).parameters.values())


def defines(path: str, package: str) -> bool:
    """Whether a class or function at a dotted path is written in a package or module: not `package.os.system`."""
    module, rest = longest(path)
    place = module.follow(rest[0]) if module is not None and len(rest) == 1 else None
    return place is not None and f"{place[0].dotted}.".startswith(f"{package}.")


def forget() -> None:
    """What was read of sources, because they, or where they are looked for, have changed."""
    source.cache_clear()
    signature.cache_clear()
