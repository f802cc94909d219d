"""Learning rates by what a net starts from: what is known to work, and when a rate is far beyond that.

The page with the sources is docs/rates.md.
"""

from typing import Literal

Start = Literal["nothing", "towers", "pretrained", "adapter"]

# Of AdamW, and of Muon, whose steps are scaled to the size of AdamW's.
RATES: dict[Start, float] = {
    "nothing": 1e-3,  # 1.2e-3 at 2.6 M parameters, 6e-4 at 124 M: arXiv:2001.08361, eq. D.1
    "towers": 1e-4,  # pretrained towers below new layers: arXiv:2107.07651, sec. 3.5
    "pretrained": 1e-5,  # all weights: arXiv:2203.02155, app. C; arXiv:2307.09288, sec. 3; arXiv:2212.00638
    "adapter": 1e-4,  # arXiv:2106.09685, app. D, and arXiv:2305.14314, app. B: 1e-4 to 2e-4
}
TELLS: dict[Start, str] = {
    "nothing": "from nothing",
    "towers": "from pretrained towers",
    "pretrained": "from pretrained weights, all of them trained",
    "adapter": "an adapter on frozen weights",
}
SMALL = 30_000_000  # parameters of a net that bears the rate it would be trained with from nothing
BEYOND = 10  # times the table's rate: what lies above is worth a line


def rate(start: Start, parameters: int = SMALL) -> float:
    """The table's rate for a net of so many parameters."""
    return RATES["nothing"] if parameters < SMALL else RATES[start]


def warning(lr: float, start: Start, parameters: int) -> str | None:
    """What to say of a rate more than ten times the table's; None for all others."""
    usual = rate(start, parameters)
    if lr <= BEYOND * usual * (1 + 1e-6):
        return None
    return (
        f"lr={lr:g} is {lr / usual:.0f} times the {usual:g} that is usual for {parameters:,} parameters "
        f"{TELLS[start]}: it may destroy what they know; a rate of {usual:g} starts gently (docs/rates.md)"
    )
