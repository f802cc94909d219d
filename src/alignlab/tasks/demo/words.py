"""Pieces of the page as HTML, every word of anybody's escaped."""

from collections.abc import Sequence
from html import escape

from alignlab.tasks.demo.judging import Judged
from alignlab.tasks.demo.looking import Fit
from alignlab.tasks.pictures.asking import Answered


def heading(title: str, below: str) -> str:
    return f'<div class="head"><h1>{escape(title)}</h1><p>{escape(below)}</p></div>'


def note(text: str, bad: bool = False) -> str:
    """One line: what was done, or why it wasn't."""
    return f'<p class="note{" bad" if bad else ""}" role="status">{escape(" ".join(text.split()))}</p>' if text else ""


def fits_table(fits: Sequence[Fit]) -> str:
    """Texts of a picture with their scores; a column that the model has nothing for is left out."""
    columns = {"cosine": [f"{fit.similarity:.3f}" for fit in fits]}
    if fits[0].probability is not None:
        columns = {"match": [_bar(fit.probability) for fit in fits]} | columns
    if fits[0].share is not None:
        columns["share of these"] = [_bar(fit.share) for fit in fits]
    return _table("text", [fit.text for fit in fits], columns)


def answers_table(found: Answered, right: str | None) -> str:
    """The likeliest answers, a decoder's own words, and what is right where it is known."""
    answers = found.probabilities
    said = [f"right: {right}"] if right is not None else []
    if found.free is not None:
        said.append(f"in its own words: {found.free or '(nothing)'}")
    table = _table("answer", list(answers), {"probability": [_bar(chance) for chance in answers.values()]})
    return table + note("; ".join(said))


def judged_table(texts: Sequence[Judged], of: str) -> str:
    """Texts with the numbers that a model gives them; one that has none says why."""
    names = next((list(text.numbers) for text in texts if text.numbers), [])
    columns = {name: [_number(text.numbers.get(name)) for text in texts] for name in names}
    said = [text.text if text.error is None else f"{text.text} ({text.error})" for text in texts]
    return f'<p class="of">{escape(of)}</p>{_table("text", said, columns)}'


def _table(first: str, texts: Sequence[str], columns: dict[str, Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in (first, *columns))
    rows = zip(texts, *columns.values(), strict=True)
    body = "".join(
        f"<tr><td>{escape(text)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>" for text, *cells in rows
    )
    return f'<div class="grid"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _bar(share: float) -> str:
    percent = f"{100 * share:5.1f}".replace(" ", "\u2007")  # as wide as a digit
    return f'<span class="bar"><i style="width:{100 * share:.1f}%"></i></span> {percent} %'


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
