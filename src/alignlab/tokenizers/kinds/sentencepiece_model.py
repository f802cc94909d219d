"""SentencePiece models: by the sentencepiece package where it is installed; BPE ones else by `tokenizers`."""

from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from alignlab.files.sentence_pieces import (
    ALGORITHMS,
    BPE,
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    Model,
    read_model,
)
from alignlab.tokenizers.kinds.alphabet import from_sentencepiece
from alignlab.tokenizers.kinds.hugging_face import Fast


def ordinary(model: Model) -> dict[int, bytes]:
    """Bytes by id of what is neither special nor added."""
    return {
        index: from_sentencepiece(piece.text)
        for index, piece in enumerate(model.pieces)
        if piece.type not in (UNKNOWN, CONTROL, USER_DEFINED)
    }


class SentencePiece:
    """A model in the sentencepiece package (C++)."""

    specials = 1  # <s>, as the models that come so set it

    def __init__(self, file: Path, model: Model, threads: int = 1) -> None:
        import sentencepiece

        try:
            self.processor = sentencepiece.SentencePieceProcessor(model_file=str(file))
        except RuntimeError as error:
            raise ValueError(f"{file}: sentencepiece refuses it: {error}") from None
        self.implementation = f"sentencepiece {sentencepiece.__version__} (C++)"
        self.kind, self.size = f"{ALGORITHMS.get(model.algorithm, '?')}, sentencepiece", len(model.pieces)
        self.unknown, self.threads = model.unknown(), threads
        self.notes: list[str] = []
        self._model = model

    @cached_property
    def pieces(self) -> dict[int, bytes]:
        return ordinary(self._model)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return self.processor.encode(list(texts), num_threads=self.threads)

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        return self.processor.decode([list(row) for row in rows], num_threads=self.threads)


def converted(model: Model) -> Fast:
    """A BPE model that leaves characters alone, in `tokenizers`: two neighbours may merge when their union is a piece,
    best score first.

    Raises:
        ValueError: another kind of model.
    """
    if model.algorithm != BPE or model.table or model.squeezes:
        what = ALGORITHMS.get(model.algorithm, "this algorithm")
        raise ValueError(
            f"a SentencePiece model of kind {what} needs the sentencepiece package: pip install 'alignlab[tokenizers]'"
        )
    vocabulary = {piece.text: index for index, piece in enumerate(model.pieces)}
    merging = {piece.text: piece.score for piece in model.pieces if piece.type == NORMAL}
    merges = [
        (text[:cut], text[cut:])
        for text, _ in sorted(merging.items(), key=lambda item: -item[1])
        for cut in range(1, len(text))
        if text[:cut] in merging and text[cut:] in merging
    ]
    unknown = model.unknown()
    name = None if unknown is None else model.pieces[unknown].text
    falls_back = any(piece.type == BYTE for piece in model.pieces)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token=name, fuse_unk=True, byte_fallback=falls_back))
    steps = [normalizers.Prepend("▁")] if model.prefix else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if model.prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    special = [piece.text for piece in model.pieces if piece.type in (UNKNOWN, CONTROL)]
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in special])
    added = [{"id": vocabulary[text]} for text in special]
    added += [{"id": vocabulary[piece.text]} for piece in model.pieces if piece.type == USER_DEFINED]
    spec = {"model": {"type": "BPE", "unk_token": name}, "decoder": {"type": "Metaspace"}, "added_tokens": added}
    return Fast(tokenizer, spec, specials=SentencePiece.specials)


def open_sentencepiece(file: Path, threads: int = 1, package: bool | None = None) -> SentencePiece | Fast:
    """A model file.

    Args:
        package: encode by sentencepiece; default: where it is installed.
    """
    model = read_model(file)
    if package if package is not None else find_spec("sentencepiece") is not None:
        return SentencePiece(file, model, threads)
    return converted(model)
