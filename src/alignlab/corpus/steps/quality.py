"""Heuristics of quality: limits on lengths, symbols, lines, repetition, with presets for kinds of text.

`en_web` has the limits of Gopher (arXiv:2112.11446, table A1 and appendix A.1.1), of C4 (arXiv:1910.10683, section
2.2: lorem ipsum, curly brackets, notices of javascript) and of FineWeb (arXiv:2406.17557, section 3.6: lines that end
with punctuation, duplicated lines, short lines). `zh_web` counts characters. `caption` has limits of its own, since
those of documents would drop all.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from alignlab.corpus.documents import Batch, Verdict
from alignlab.corpus.letters import DIGIT, LETTER, MARK, Letters
from alignlab.corpus.steps.repetition import repeated

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")


@dataclass(frozen=True)
class Limits:
    """Limits on a text; None: not looked at. Words are those between spaces (`chars`: characters of scripts without
    spaces count one each); shares are of words, lines or characters.
    """

    min_words: int | None = None
    max_words: int | None = None
    min_mean_word: float | None = None  # letters
    max_mean_word: float | None = None
    max_longest_word: int | None = None  # characters without a space: base64, URLs
    max_symbols: float | None = None  # "#" and ellipses for each word
    max_bullet_lines: float | None = None
    max_ellipsis_lines: float | None = None
    min_letter_words: float | None = None  # words with a letter
    min_letters: float | None = None  # characters that are letters or marks, of those that are no spaces
    max_digits: float | None = None  # characters that are digits, likewise
    min_stop_words: int | None = None  # how many of eight English ones
    max_same_lines: float | None = None  # characters in lines that stood there before
    max_short_lines: float | None = None  # lines of at most 30 characters
    min_ended_lines: float | None = None  # lines that end with a full stop, a question mark, ...
    repetition: bool | None = None  # Gopher's limits on runs of words that repeat
    notices: bool | None = None  # C4's: lorem ipsum, javascript
    brackets: bool | None = None  # C4's: text with a curly bracket is code


_GOPHER = Limits(
    min_words=50,
    max_words=100_000,
    min_mean_word=3,
    max_mean_word=10,
    max_longest_word=1000,
    max_symbols=0.1,
    max_bullet_lines=0.9,
    max_ellipsis_lines=0.3,
    min_letter_words=0.8,
    min_stop_words=2,
    max_same_lines=0.2,
    repetition=True,
    notices=True,
)
_STRICT = Limits(
    **{
        **asdict(_GOPHER),
        "max_short_lines": 0.67,
        "min_ended_lines": 0.12,
        "max_same_lines": 0.1,
        "brackets": True,
    }
)
_CHINESE = Limits(
    min_words=50,
    max_words=200_000,
    max_longest_word=1000,
    max_symbols=0.1,
    max_bullet_lines=0.9,
    max_ellipsis_lines=0.3,
    min_letters=0.6,
    max_digits=0.3,
    max_same_lines=0.2,
    repetition=True,
    notices=True,
)
PRESETS: Mapping[str, Limits] = {
    "en_web": _GOPHER,
    "en_web_strict": _STRICT,
    "zh_web": _CHINESE,
    "caption": Limits(min_words=1, max_words=80, max_longest_word=60, min_letters=0.5),
    "chat": Limits(min_words=1, max_longest_word=20_000),
}
NAMES = tuple(field.name for field in fields(Limits))
_ENDS = tuple(".!?。！？…\"'”’」』)）:：;；")
_BULLETS = ("•", "‣", "▶", "◀", "◦", "■", "□", "▪", "▫", "–", "-", "*", "●", "·", "➢")
_PARTS = ("orem", "OREM", "avascript", "avaScript", "AVASCRIPT")  # of what is looked for, so that few texts are lowered
_NOTICES = ("lorem ipsum", "enable javascript", "javascript is disabled", "requires javascript", "启用javascript")


class Quality:
    """Drops texts beyond the limits of a preset; the evidence is the measure, its value and the limit.

    Args:
        preset: one of PRESETS, or "auto": `zh_web` for texts mostly of characters without spaces, else `en_web`, there
            without stop words where the text's language is told and isn't English.
        limits: others than the preset's, by name; None takes one away.

    Raises:
        ValueError: no such preset or limit.
    """

    name = "quality"

    def __init__(self, preset: str = "auto", **limits: Any) -> None:
        if preset != "auto" and preset not in PRESETS:
            raise ValueError(f"preset is {preset!r}; there are auto, {', '.join(PRESETS)}")
        names = ["en_web", "zh_web"] if preset == "auto" else [preset]
        self._auto, self._limits = preset == "auto", [Limits(**{**asdict(PRESETS[name]), **limits}) for name in names]

    def __call__(self, batch: Batch) -> Iterator[tuple[int, Verdict]]:
        letters = batch.letters
        measured = _Measured(letters)
        crowded = letters.alone_share > 0.3
        left = np.zeros(len(batch.documents), bool)
        for number, _ in batch.living():
            limits = self._limits[int(self._auto and crowded[number])]
            english = not self._auto or batch.languages[number] in ("", "en")
            found = next(_broken(measured, batch.texts[number], number, limits, english), None)
            left[number] = found is None and limits.repetition
            if found is not None:
                yield number, _verdict(*found)
        if left.any():
            tell = repeated(letters, left)
            for number in np.flatnonzero(left).tolist():
                if (found := next(tell(number), None)) is not None:
                    yield number, _verdict(*found)


def _verdict(reason: str, value: float, limit: float) -> Verdict:
    return Verdict(reason, {"value": round(float(value), 4), "limit": limit})


class _Measured:
    """Numbers of all texts of a batch at once."""

    def __init__(self, letters: Letters) -> None:
        self.letters = letters
        starts, ends, bounds = letters.spaced
        firsts = bounds[:-1]
        runs = np.diff(bounds)
        lengths = ends - starts
        sums = np.concatenate([[0], np.cumsum(lengths)])
        self.filled = np.diff(sums[bounds])  # characters that are no spaces
        alone = np.round(letters.alone_share * np.diff(letters.bounds)).astype(np.int64)
        self.words = np.where(letters.alone_share > 0.3, np.diff(letters.bounds), runs)
        self.mean_word = self.filled / np.maximum(runs, 1)
        self.alone = alone
        is_letter = (letters.kinds & LETTER) != 0
        # Behind a run stand spaces alone, so that a stretch up to the next one has the run's letters.
        some = np.maximum.reduceat(is_letter.view(np.uint8), starts) if len(starts) else np.zeros(0, np.uint8)
        with_letter = np.concatenate([[0], np.cumsum(some, dtype=np.int64)])
        self.letter_words = np.diff(with_letter[bounds]) / np.maximum(runs, 1)
        self.letters_share = letters.counted((letters.kinds & (LETTER | MARK)) != 0) / np.maximum(self.filled, 1)
        self.digits = letters.counted((letters.kinds & DIGIT) != 0) / np.maximum(self.filled, 1)
        longest = np.zeros(len(runs), np.int64)
        if (some := np.flatnonzero(runs)).size:
            longest[some] = np.maximum.reduceat(lengths, firsts[some])
        self.longest = longest
        self._stop_words(letters)

    def _stop_words(self, letters: Letters) -> None:
        known = Letters([" ".join(STOP_WORDS)]).hashes
        self.stop_words = np.zeros(len(letters.starts), np.int64)
        for one in known:
            places = np.flatnonzero(letters.hashes == one)
            self.stop_words[np.unique(np.searchsorted(letters.bounds, places, "right") - 1)] += 1


def _broken(
    of: _Measured, text: str, number: int, limits: Limits, english: bool
) -> Iterator[tuple[str, float, float | int | bool]]:
    words = int(of.words[number])
    yield from _below("min_words", words, limits.min_words)
    yield from _above("max_words", words, limits.max_words)
    longest = 0 if of.alone[number] else int(of.longest[number])  # sentences of Chinese are one run
    yield from _above("max_longest_word", longest, limits.max_longest_word)
    yield from _below("min_mean_word", of.mean_word[number], limits.min_mean_word)
    yield from _above("max_mean_word", of.mean_word[number], limits.max_mean_word)
    yield from _below("min_letter_words", of.letter_words[number], limits.min_letter_words)
    yield from _below("min_letters", of.letters_share[number], limits.min_letters)
    yield from _above("max_digits", of.digits[number], limits.max_digits)
    if limits.max_symbols is not None:
        symbols = max(text.count("#"), text.count("...") + text.count("…"))
        yield from _above("max_symbols", symbols / max(words, 1), limits.max_symbols)
    if english:
        yield from _below("min_stop_words", int(of.stop_words[number]), limits.min_stop_words)
    yield from _of_lines(text, limits)
    if limits.brackets and "{" in text:
        yield "brackets", text.count("{"), 0
    if limits.notices and any(part in text for part in _PARTS):
        small = text.lower()
        yield from ((f"notices: {one}", 1, 0) for one in _NOTICES if one in small)


def _of_lines(text: str, limits: Limits) -> Iterator[tuple[str, float, float | int | bool]]:
    if limits.max_bullet_lines is None and limits.max_same_lines is None and limits.min_ended_lines is None:
        return
    lines = [stripped for line in text.split("\n") if (stripped := line.strip())]
    count = max(len(lines), 1)
    if limits.max_bullet_lines is not None and _bulleted(lines, limits.max_bullet_lines):
        share = sum(line.startswith(_BULLETS) for line in lines) / count
        yield from _above("max_bullet_lines", share, limits.max_bullet_lines)
    # There are no more lines with an ellipsis than ellipses.
    if (most := limits.max_ellipsis_lines) is not None and text.count("...") + text.count("…") > most * count:
        share = sum(line.endswith(("...", "…")) for line in lines) / count
        yield from _above("max_ellipsis_lines", share, limits.max_ellipsis_lines)
    if limits.max_same_lines is not None and len(set(lines)) < len(lines):
        once, same = set(), 0
        for line in lines:
            same += len(line) if line in once else 0
            once.add(line)
        yield from _above("max_same_lines", same / max(sum(map(len, lines)), 1), limits.max_same_lines)
    if limits.max_short_lines is not None:
        yield from _above("max_short_lines", sum(len(line) <= 30 for line in lines) / count, limits.max_short_lines)
    if limits.min_ended_lines is not None:
        yield from _below(
            "min_ended_lines", sum(line.endswith(_ENDS) for line in lines) / count, limits.min_ended_lines
        )


def _bulleted(lines: list[str], limit: float) -> bool:
    """Whether more than a share of the lines may begin with a bullet: most texts show early that they don't."""
    others = 0
    for line in lines:
        others += not line.startswith(_BULLETS)
        if others > (1 - limit) * len(lines) + 1:
            return False
    return bool(lines)


def _below(name: str, value: float, limit: float | None) -> Iterator[tuple[str, float, float]]:
    if limit is not None and value < limit:
        yield name, value, limit


def _above(name: str, value: float, limit: float | None) -> Iterator[tuple[str, float, float]]:
    if limit is not None and value > limit:
        yield name, value, limit
