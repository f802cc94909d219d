"""What the size of a run may be."""

from typing import Literal, get_args

Kind = Literal["params", "flops", "tokens", "loss", "step"]
KINDS = get_args(Kind)
TITLES = {
    "params": "parameters",
    "flops": "FLOPs of training",
    "tokens": "tokens seen",
    "loss": "1 / validation loss",
    "step": "steps",
}
