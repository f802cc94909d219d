"""A tokenizer with more pieces for one script, and a model whose embeddings know them."""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from alignlab.files.writing import write_folder
from alignlab.tokenizers.continued_merges import Learner, Merge, implies, of_script, pure
from alignlab.tokenizers.kinds.alphabet import BYTE, from_alphabet, from_sentencepiece
from alignlab.tokenizers.kinds.hugging_face import Fast

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FILES = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
OLD_TEXT = "The quick brown fox jumps over the lazy dog; 12 + 30 = 42."


@dataclass(frozen=True)
class Extension:
    """New pieces for a tokenizer, in the order of what they save.

    Attributes:
        merges: characters that had no piece, and pairs; they come behind all old ones.
        ids: of the new pieces, behind all old ids, those of added tokens included.
    """

    base: Fast
    merges: list[Merge]
    ids: dict[str, int]

    def first(self, count: int) -> "Extension":
        """The extension by fewer pieces."""
        ids = dict(list(self.ids.items())[:count])
        old = set(self.base.tokenizer.get_vocab())
        cut = [merge for merge in self.merges if merge.left + merge.right in ids or merge.left + merge.right in old]
        return replace(self, merges=cut, ids=ids)

    def spec(self) -> dict[str, Any]:
        """The extended tokenizer as JSON."""
        spec = json.loads(self.base.tokenizer.to_str())
        model = spec["model"]
        # The library numbers added tokens anew, behind the model's vocabulary, unless they are in it.
        model["vocab"] |= {token["content"]: token["id"] for token in spec["added_tokens"]} | self.ids
        pairs = [[merge.left, merge.right] for merge in self.merges if merge.right]
        as_text = bool(model["merges"]) and isinstance(model["merges"][0], str)
        model["merges"] += [" ".join(pair) for pair in pairs] if as_text else pairs
        return spec

    def tokenizer(self) -> Fast:
        """The extended tokenizer."""
        return Fast(Tokenizer.from_str(json.dumps(self.spec())))

    def parts(self) -> dict[int, list[int]]:
        """New id to the old ids that it stands for."""
        old, halves = self.base.tokenizer.get_vocab(), {}
        for merge in self.merges:
            halves.setdefault(merge.left + merge.right, (merge.left, merge.right))

        def expand(symbol: str) -> Iterator[int]:
            if symbol in old:
                yield old[symbol]
            elif symbol in halves and halves[symbol][1]:
                for half in halves[symbol]:
                    yield from expand(half)
            else:
                yield from (old[f"<0x{byte:02X}>"] for byte in symbol.encode())

        return {index: list(expand(piece)) for piece, index in self.ids.items()}


def learn(base: Fast, texts: Iterable[str], pieces: int, script: str) -> Extension:
    """Goes on with a tokenizer's merges on texts.

    Args:
        base: byte pair encoding over bytes, or over characters with bytes to fall back on.
        pieces: new ones at most.
        script: of `continued_merges.SCRIPTS`; pieces hold nothing else but a space in front.
    """
    model = json.loads(base.tokenizer.to_str())["model"]
    if model["type"] != "BPE" or not (base.style == "bytes" or model.get("byte_fallback")):
        raise ValueError(
            f"a {base.kind} tokenizer can't be extended: BPE over bytes can, or with bytes to fall back on"
        )
    if model.get("end_of_word_suffix") or model.get("continuing_subword_prefix"):
        raise ValueError("a tokenizer that marks the ends of words can't be extended")
    if pieces < 1:
        raise ValueError(f"pieces is {pieces}; it must be at least 1")
    inside = of_script(script)
    read = from_alphabet if base.style == "bytes" else from_sentencepiece
    runs: Counter[tuple[str, ...]] = Counter()
    missing: dict[str, int] = {}
    for text in texts:
        runs.update(_runs(base, text, read, inside, missing))

    def allowed(left: str, right: str) -> bool:
        piece = read(left) + read(right)
        return implies(piece, inside) and pure(piece, inside)

    old = base.tokenizer.get_vocab()
    merges = Learner(runs.items(), missing, allowed).learn(pieces, old)
    new = dict.fromkeys(name for merge in merges if (name := merge.left + merge.right) not in old)
    top = max(old.values()) + 1
    return Extension(base, merges, {piece: top + place for place, piece in enumerate(new)})


def _runs(base: Fast, text: str, read: Any, inside: Any, missing: dict[str, int]) -> Iterator[tuple[str, ...]]:
    """What merging can happen within: today's symbols of the script side by side in one word; adds to `missing`."""
    encoding = base.tokenizer.encode(text, add_special_tokens=False)
    run: list[str] = []
    pending = b""
    last: int | None = None
    for token, word in zip(encoding.tokens, encoding.word_ids, strict=True):
        fallback = BYTE.fullmatch(token) if base.style == "sentencepiece" else None
        if fallback:
            pending += bytes([int(fallback[1], 16)])
            try:
                token = pending.decode()
            except UnicodeDecodeError:
                continue
            if inside(token):
                missing[token] = len(pending)
        pending = b""
        ours = inside(token) if fallback else _part(read(token), inside)
        if run and (word != last or not ours):
            yield tuple(run)
            run = []
        if ours:
            run.append(token)
        last = word
    if run:
        yield tuple(run)


def _part(piece: bytes, inside: Any) -> bool:
    """Whether a piece can be a part of a new one: bytes within a character, or characters of the script."""
    text = piece.removeprefix(b" ").decode(errors="ignore")
    return all(map(inside, text)) and any(byte >= 0x80 for byte in piece)


def forecast(extension: Extension, held_out: Sequence[str], width: int | None, tied: bool) -> list[dict[str, Any]]:
    """What pieces save on texts that they weren't learned from, and cost: a row for an eighth, a quarter, half, all.

    Args:
        width: of the model's embeddings; parameters are counted with it.
        tied: one matrix for input and output.
    """
    before = sum(map(len, extension.base.encode(held_out)))
    counts = sorted({max(1, len(extension.ids) // part) for part in (8, 4, 2, 1)})
    rows = []
    for count in counts:
        after = sum(map(len, extension.first(count).tokenizer().encode(held_out)))
        row = {"pieces": count, "tokens before": before, "tokens after": after, "saved": 1 - after / max(before, 1)}
        if width is not None:
            row["parameters"] = count * width * (1 if tied else 2)
        rows.append(row)
    return rows


def check_old_texts(extension: Extension, texts: Iterable[str]) -> int:
    """Number of texts without the script, all of which are cut as before.

    Raises:
        ValueError: one isn't, or an old id means something else.
    """
    old = list(texts)
    vocabulary = extension.tokenizer().tokenizer.get_vocab()
    for token, index in extension.base.tokenizer.get_vocab().items():
        if vocabulary.get(token) != index:
            raise ValueError(f"{token!r} was {index} and is {vocabulary.get(token)}")
    for text, ours, theirs in zip(old, extension.tokenizer().encode(old), extension.base.encode(old), strict=True):
        if ours != theirs:
            raise ValueError(f"a text without new pieces is cut otherwise: {text!r}")
    return len(old)


def extend_model(model: "PreTrainedModel", extension: Extension) -> float:
    """Gives a causal language model rows for the new pieces, each the mean of the rows that it stands for.

    Returns:
        The largest change of a logit of an old id on an old text; what matrix products of another size round otherwise.
    """
    import torch

    from alignlab.models.language.loading import add_rows

    old_ids = sorted(extension.base.tokenizer.get_vocab().values())
    row = extension.base.encode([OLD_TEXT])
    model.eval()
    with torch.no_grad():
        before = model(torch.tensor(row)).logits[..., old_ids]
        add_rows(model, extension.parts())
        return float((model(torch.tensor(row)).logits[..., old_ids] - before).abs().max())


def write(extension: Extension, folder: Path, source: Path | None, model: "PreTrainedModel | None" = None) -> None:
    """Writes the extended tokenizer, what lay beside the old one, and the model.

    Args:
        source: folder of the old tokenizer.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"output: {folder} isn't empty")

    def fill(target: Path) -> None:
        if model is not None:
            model.save_pretrained(target)
        for name in FILES:
            if source is not None and (source / name).is_file():
                shutil.copy(source / name, target / name)
        text = json.dumps(extension.spec(), ensure_ascii=False)
        (target / "tokenizer.json").write_text(text, encoding="utf-8")

    write_folder(folder, fill)
