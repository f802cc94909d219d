"""The tokenizer of a released CLIP or SigLIP, and what its processor puts around a text's own ids."""

import gzip
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, CLIPTokenizer, PreTrainedTokenizerFast

from alignlab.files.kinds import line_of
from alignlab.models.released.source import Released
from alignlab.types.recipes import TextRecipe

_BPE = "bpe_simple_vocab_16e6.txt.gz"  # OpenAI's merges, as its package and open_clip's bring them
_START, _END = "<|startoftext|>", "<|endoftext|>"
_MERGES = 49152 - 256 - 2  # of that file so many are used


def words_of(released: Released, folder: str | None = None) -> tuple[PreTrainedTokenizerFast, TextRecipe]:
    """Tokenizer and recipe; `folder` has the tokenizer of a net whose own folder has none.

    Raises:
        ValueError: there is none, or it has other ids than the net.
    """
    if folder and (released.layout == "transformers" or _lies_in(released.place)):
        raise ValueError(f"tokenizer={folder}: {released.path} comes with its own; leave it out")
    place = Path(folder).expanduser() if folder else released.place
    what = f"tokenizer={folder}" if folder else f"path={released.path}"
    sizes = released.sizes
    try:
        if released.layout == "open_clip":
            tokenizer = _of_merges(place if place.is_dir() else place.parent)
            recipe = TextRecipe(sizes.context_length, *around(tokenizer), 0, cleaning="lower")
        elif sizes.siglip and (place / "spiece.model").is_file():
            tokenizer = _of_sentence_pieces(place)
            end = tokenizer.eos_token_id
            recipe = TextRecipe(sizes.context_length, (), (end,), tokenizer.pad_token_id, True, cleaning="canonical")
        else:
            tokenizer = _of_transformers(place)
            left = sizes.siglip and tokenizer.padding_side == "left"
            recipe = TextRecipe(sizes.context_length, *around(tokenizer), tokenizer.pad_token_id, sizes.siglip, left)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    if len(tokenizer) != sizes.vocab_size:
        raise ValueError(f"{what}: the tokenizer has {len(tokenizer)} ids, the net {sizes.vocab_size}")
    if not sizes.siglip and not recipe.end:
        raise ValueError(f"{what}: the tokenizer ends no text with a token, which this net reads a text's meaning from")
    return tokenizer, recipe


def _of_transformers(place: Path) -> PreTrainedTokenizerFast:
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, use_fast=True, trust_remote_code=False)
    except Exception as error:  # whatever a damaged tokenizer.json makes of the readers
        raise ValueError(f"its tokenizer can't be read ({line_of(error)})") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError("its tokenizer has no fast version (tokenizer.json)")
    if tokenizer.pad_token_id is None:
        raise ValueError("its tokenizer has no token for padding")
    return tokenizer


def around(tokenizer: PreTrainedTokenizerFast) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that it puts before and behind a text."""
    own, whole = (tokenizer("a", add_special_tokens=add).input_ids for add in (False, True))
    start = next((i for i in range(len(whole)) if whole[i : i + len(own)] == own), None)
    if not own or start is None:
        raise ValueError("its tokenizer doesn't keep a text's own ids together")
    return tuple(whole[:start]), tuple(whole[start + len(own) :])


def _of_merges(folder: Path) -> CLIPTokenizer:
    """CLIP's byte-pair encoding, from whatever form of it lies in the folder, or that an installed package brings."""
    for file, read in (
        (folder / _BPE, _merges_of_openai),
        (folder / "merges.txt", _merges_of_text),
        (folder / "tokenizer.json", _merges_of_json),
        *((file, _merges_of_openai) for file in _installed()),
    ):
        if file.is_file():
            try:
                vocabulary, merges = read(file)
            except (OSError, ValueError, KeyError, TypeError, EOFError, gzip.zlib.error) as error:
                raise ValueError(f"{file} is no byte-pair encoding of CLIP's ({line_of(error)})") from error
            return CLIPTokenizer(vocab=vocabulary, merges=merges)
    raise ValueError(
        f"there is no tokenizer beside the weights ({_BPE}, merges.txt or tokenizer.json), and no installed package "
        "brings it: pip install open_clip_torch, or name a folder with it as tokenizer"
    )


def _lies_in(place: Path) -> bool:
    folder = place if place.is_dir() else place.parent
    return any((folder / name).is_file() for name in (_BPE, "merges.txt", "tokenizer.json"))


def _installed() -> Iterator[Path]:
    for package in ("open_clip", "clip"):
        spec = find_spec(package)
        if spec is not None and spec.origin:
            yield Path(spec.origin).parent / _BPE


def _merges_of_openai(file: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    with gzip.open(file) as content:
        lines = content.read().decode("utf-8").split("\n")
    return vocabulary_of_merges(lines[1 : _MERGES + 1])


def _merges_of_text(file: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    lines = [line for line in file.read_text(encoding="utf-8").split("\n") if line and not line.startswith("#version")]
    vocabulary, merges = vocabulary_of_merges(lines)
    beside = file.with_name("vocab.json")
    return (json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else vocabulary), merges


def _merges_of_json(file: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    model = json.loads(file.read_text(encoding="utf-8"))["model"]
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    return model["vocab"], merges


def vocabulary_of_merges(lines: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Ids in the order of OpenAI's: letters, letters that end a word, merges, start, end."""
    merges = [tuple(line.split()) for line in lines if line]
    if not merges or any(len(merge) != 2 for merge in merges):
        raise ValueError("a line isn't two pieces")
    letters = _letters()
    names = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), _START, _END]
    return {name: number for number, name in enumerate(names)}, merges


def _letters() -> list[str]:
    """What stands for each byte, in OpenAI's order: printable ones for themselves first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [*map(chr, printable), *(chr(256 + n) for n in range(256 - len(printable)))]


def _of_sentence_pieces(place: Path) -> PreTrainedTokenizerFast:
    """SigLIP's SentencePiece model of kind unigram, by `tokenizers`."""
    from alignlab.files.sentence_pieces import CONTROL, UNIGRAM, UNKNOWN, read_model

    model = read_model(place / "spiece.model")
    unknown = model.unknown()
    if model.algorithm != UNIGRAM or unknown is None:
        raise ValueError("its spiece.model is of another kind than unigram")
    rust = Tokenizer(models.Unigram([(piece.text, piece.score) for piece in model.pieces], unk_id=unknown))
    table = [normalizers.Precompiled(model.table)] if model.table else []
    rust.normalizer = normalizers.Sequence([*table, normalizers.Replace(Regex(" {2,}"), " ")])
    rust.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    rust.decoder = decoders.Metaspace(prepend_scheme="always")
    special = {"unk_token": model.pieces[unknown].text, "eos_token": "</s>", "pad_token": "</s>"}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (place / name).is_file():
            said = json.loads((place / name).read_text(encoding="utf-8"))
            for key in special:
                value = said.get(key)
                value = value.get("content") if isinstance(value, dict) else value
                special[key] = value or special[key]
    known = {piece.text for piece in model.pieces if piece.type in (CONTROL, UNKNOWN)}
    if lacking := [text for text in special.values() if text not in known]:
        raise ValueError(f"its spiece.model lacks {', '.join(lacking)}")
    return PreTrainedTokenizerFast(tokenizer_object=rust, **special)
