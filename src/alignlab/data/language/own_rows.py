"""Your own rows, from a file or the hub: texts to learn, pairs, or prompts to answer; docs/data.md has the columns."""

from typing import Literal

from alignlab.data.language.batches import PromptRows, Shuffled, Split, TextRows
from alignlab.data.language.dialogues import without_prompts
from alignlab.data.language.preference_texts import comparisons_of, examples_of, labelled_of, prompts_of
from alignlab.data.language.rated_reviews import of_split
from alignlab.data.language.rendering import Renderer
from alignlab.data.language.rows import (
    OwnRow,
    example,
    labelled,
    normalised,
    preference,
    prompt,
    read_hub,
    read_jsonl,
    sides,
)

_READ = {"sft": example, "label": labelled, "preference": preference, "prompt": prompt}
_RESPONSES = {"sft": ("response",), "label": ("response",), "preference": ("chosen", "rejected"), "prompt": ()}


class OwnRows:
    """The rows behind `data=jsonl`, `preference_jsonl` and `hub`.

    Args:
        path: a .jsonl file, or with `source="hub"` a data set's name; several: `mix` of the data module.
        kind: "sft" (to learn), "preference" (pairs), "label" (good or bad; pairs are two of them each) or "prompt" (to
            answer).
        source: "jsonl" or "hub".
        val_path: a second file or (hub) the name of a split; None holds out `val_share` of the rows by a hash of their
            prompt.
        split: of a data set of the hub, as `config`.
        pack: for "sft", several texts in a training row of `max_length` tokens.
        split_seed: salts the hash.
        val_share: see `val_path`.

    Raises:
        ValueError: no path.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        kind: Literal["sft", "preference", "label", "prompt"] = "sft",
        source: Literal["jsonl", "hub"] = "jsonl",
        val_path: str | None = None,
        split: str = "train",
        config: str | None = None,
        pack: bool = False,
        split_seed: int,
        val_share: float,
    ) -> None:
        if path is None:
            raise ValueError("path is not set: name a .jsonl file, or several with mix={a.jsonl: 0.7, b.jsonl: 0.3}")
        self._path, self._kind, self._source, self._val_path = path, kind, source, val_path
        self._split, self._config, self._pack = split, config, pack
        self._split_seed, self._val_share = split_seed, val_share
        self._read: dict[str | None, list[OwnRow]] = {}

    def rows(self, split: Split, renderer: Renderer, seed: int) -> Shuffled:
        """Raises ValueError where a split has no row, or a row can't be read."""
        rows = self._of_split(split)
        if not rows:
            raise ValueError(f"path={self._path}: no rows for {split}; set val_path or another val_share")
        if self._kind == "prompt":
            return PromptRows(
                prompts_of(rows, renderer), seed, [row.prompt for row in rows], [row.columns for row in rows]
            )
        if self._kind == "label":
            labels = {row.good for row in rows}
            if split == "train" and len(labels) < 2:
                raise ValueError(f"path={self._path}: every label is {str(labels.pop()).lower()}; KTO needs both")
            return labelled_of(rows, renderer, seed)
        if self._kind == "preference":
            return comparisons_of(rows, renderer, seed)
        capacity = renderer.max_length if self._pack and split == "train" else None
        return TextRows(examples_of(rows, renderer), seed, capacity)

    def _of_split(self, split: Split) -> list[OwnRow]:
        if self._val_path is not None:
            return self._rows(None if split == "train" else self._val_path)
        return of_split(self._rows(None), split, self._key, self._split_seed, self._val_share)

    def _rows(self, val_path: str | None) -> list[OwnRow]:
        if val_path not in self._read:
            if self._source == "hub":
                raw = read_hub(self._path, val_path or self._split, self._config)
            else:
                raw = read_jsonl(val_path, "val_path") if val_path else read_jsonl(self._path)
            raw = sides(raw) if self._kind == "label" else raw
            rows, columns = normalised(raw, _READ[self._kind]), _RESPONSES[self._kind]
            self._read[val_path] = without_prompts(rows, columns, val_path or self._path) if columns else rows
        return self._read[val_path]

    def _key(self, row: OwnRow) -> str:
        """What decides about the split: the prompt, so that no prompt is in both; the whole row where there is none."""
        return str(row.prompt or (row.prompt if self._kind == "prompt" else tuple(row)[:-1]))  # without its place
