"""Which tokens end a text: one set for training, rollouts, inference and exports, whatever its parts say."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alignlab.data.language.chat_text import ChatText


def ends_of(config: Any, generation: Any, tokenizer: Any, stop_ids: Iterable[int] = ()) -> dict[int, list[str]]:
    """Every id that ends a text, with who says so: the tokenizer and its chat template first, which texts are written
    with, then generation config,
    config and `stop_ids`. Any of them may be None."""
    ends: dict[int, list[str]] = {}
    said = [
        ("tokenizer", getattr(tokenizer, "eos_token_id", None)),
        ("chat template", None if tokenizer is None else ChatText(tokenizer).turn_end),
        ("generation_config", getattr(generation, "eos_token_id", None)),
        ("config", getattr(config, "eos_token_id", None)),
        ("stop_ids", list(stop_ids)),
    ]
    for source, ids in said:
        for id in ids if isinstance(ids, list | tuple) else [ids]:
            if id is not None:
                ends.setdefault(int(id), []).append(source)
    return ends


def described(ends: dict[int, list[str]], tokenizer: Any) -> str:
    """The ends in a line for people."""
    names = {id: "" if tokenizer is None else f" {tokenizer.convert_ids_to_tokens(id)!r}" for id in ends}
    return "; ".join(f"{id}{names[id]} ({', '.join(sources)})" for id, sources in ends.items()) or "none is known"


def write_ends(folder: Path, ends: Iterable[int]) -> None:
    """Puts the ends into config.json and generation_config.json of an export; an adapter has no config, and gets the
    latter.
    """
    ids, whole = list(ends), (folder / "config.json").exists()
    for name in ("config.json", "generation_config.json"):
        file = folder / name
        if not ids or (not file.exists() and (whole or name == "config.json")):
            continue
        content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        content["eos_token_id"] = ids[0] if len(ids) == 1 else ids
        file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
