"""Shares of several sources of data."""

from collections.abc import Mapping


def shares_of(mix: Mapping[str, float]) -> dict[str, float]:
    """The shares of `mix={a: 7, b: 3}`, made to add up to 1.

    Raises:
        ValueError: fewer than two sources, or a share that is no number above 0.
    """
    if len(mix) < 2:
        raise ValueError(f"mix needs two sources or more, such as {{a.jsonl: 0.7, b.jsonl: 0.3}}; it has {len(mix)}")
    for name, share in mix.items():
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < float("inf"):
            raise ValueError(f"mix: the share of {name} is {share}; it must be a number above 0")
    return {str(name): share / sum(mix.values()) for name, share in mix.items()}
