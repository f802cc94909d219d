"""How varied texts are."""

from collections.abc import Hashable, Sequence


def distinct(texts: Sequence[Sequence[Hashable]], n: int) -> float:
    """Share of different n-grams among all n-grams of some texts (arXiv:1510.03055, sec. 5.2); 0 if there is none."""
    grams = [tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0
