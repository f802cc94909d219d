"""The values of a config, by dotted key."""

from collections.abc import Iterator
from typing import Any


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of all that isn't a dict, and of dicts that are empty.

    Args:
        node: a plain container, as `OmegaConf.to_container` gives it.
        key: where it stands.
    """
    if isinstance(node, dict) and node:
        for name, value in node.items():
            yield from leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, node
