"""Reads YAML that may be anybody's: nothing that a few lines blow up to gigabytes."""

from pathlib import Path

import yaml

LARGEST = 4 * 2**20  # bytes; a config has some thousand
DEEPEST = 100  # levels


def yaml_text(file: Path) -> str:
    """The text of a YAML file that can be parsed without harm.

    Raises:
        ValueError, one line: it can't be read, is no YAML, is too large or too deep, or has aliases (`*x`), of which a
            few lines can stand for more than fits into memory.
    """
    try:
        if file.stat().st_size > LARGEST:
            raise ValueError(f"{file.stat().st_size} bytes are too many for a config")
        text = file.read_text(encoding="utf-8")
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"line {event.start_mark.line + 1} has an alias, *{event.anchor}")
            if depth > DEEPEST:
                raise ValueError(f"nested more than {DEEPEST} deep at line {event.start_mark.line + 1}")
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{file} can't be read ({' '.join(str(error).split())[:200]})") from error
    return text
