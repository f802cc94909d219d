"""Precisions in which an on-policy run can't train; `methods/rlhf/precision.py` says what computes in which."""

REFUSED = {
    "16-mixed": "float16's losses need a scaler, past which an update takes its steps: take bf16-mixed, or 32-true",
    "16-true": "steps as small as those of an update are lost in float16 weights, and their losses overflow: "
    "take bf16-true, bf16-mixed or 32-true",
}


def check_precision(precision: str) -> None:
    """Raises ValueError for a precision of the trainer that can't work."""
    if precision in REFUSED:
        raise ValueError(f"trainer.precision={precision} can't be had with ppo and grpo: {REFUSED[precision]}")
