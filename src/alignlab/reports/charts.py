"""Pictures as inline SVG, in the colours of the page: bars and histograms."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

ROW = 38  # pixels of a bar with its label


def bars(rows: Sequence[tuple[str, float, str]], full: float | None = None) -> Markup:
    """Horizontal bars from zero, a label above each.

    Args:
        rows: label, length (not negative), what to write at the right end.
        full: the length that reaches from side to side; default: the longest.
    """
    longest = full or max((value for _, value, _ in rows), default=0) or 1
    parts = [Markup('<svg class="bars" height="{}" role="img">').format(ROW * len(rows))]
    for place, (label, value, text) in enumerate(rows):
        top = place * ROW
        parts.append(
            Markup(
                '<text x="0" y="{y}">{label}</text><text x="100%" y="{y}" text-anchor="end">{text}</text>'
                '<rect class="back" x="0" y="{bar}" width="100%" height="10" rx="3"/>'
                '<rect x="0" y="{bar}" width="{width:.2f}%" height="10" rx="3"/>'
            ).format(y=top + 14, bar=top + 20, label=label, text=text, width=100 * value / longest)
        )
    return Markup("").join([*parts, Markup("</svg>")])


def histograms(
    rows: Mapping[str, Sequence[tuple[int, int]]], marks: Sequence[tuple[int, str]] = (), bins: int = 40
) -> Markup:
    """A small histogram for each name, all on one axis; the last bin holds whatever is longer.

    Args:
        rows: values and how often each occurs.
        marks: places on the axis that a line is drawn at, and their names.
    """
    flat = sorted(pair for pairs in rows.values() for pair in pairs)
    total, reached, top = sum(n for _, n in flat), 0, 1
    for value, n in flat:  # so far that 99 of 100 values lie on the axis
        reached, top = reached + n, value
        if reached >= 0.99 * total:
            break
    top = max(top, *(place for place, _ in marks), bins) if marks else max(top, bins)
    width = -(-(top + 1) // bins)
    return Markup('<div class="many">{}</div>').format(
        Markup("").join(_histogram(name, pairs, marks, bins, width) for name, pairs in rows.items())
    )


def _histogram(
    name: str, pairs: Sequence[tuple[int, int]], marks: Sequence[tuple[int, str]], bins: int, width: int
) -> Markup:
    counts = [0] * bins
    for value, n in pairs:
        counts[min(value // width, bins - 1)] += n
    tallest = max(counts) or 1
    steps = "".join(f"V{60 - 60 * n / tallest:.1f}h1" for n in counts)
    lines = Markup("").join(
        Markup('<line class="mark" x1="{x:.2f}" x2="{x:.2f}" y1="0" y2="60"><title>{text}</title></line>').format(
            x=place / width, text=text
        )
        for place, text in marks
    )
    said = ", ".join(text for _, text in marks)
    return Markup(
        '<div><b>{name}</b><svg viewBox="0 0 {bins} 60" height="60" preserveAspectRatio="none" role="img">'
        '<path class="shape" d="M0 60{steps}V60Z"/>{lines}</svg><small><span>0</span><span>{said}</span>'
        "<span>{end}+</span></small></div>"
    ).format(name=escape(name), bins=bins, steps=Markup(steps), lines=lines, said=said, end=width * (bins - 1))
