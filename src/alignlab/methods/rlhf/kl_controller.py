"""How strongly the policy is held to its reference: a fixed or an adaptive coefficient of the KL penalty."""

from typing import Literal

from alignlab.losses.ppo import KlEstimator

Unit = Literal["sequence", "token"]


class KlController:
    """The coefficient beta, adapted to a target: beta <- beta (1 + clip(KL / target - 1, -0.2, 0.2) n / horizon)
    (arXiv:1909.08593, sec. 2.2).

    Args:
        coefficient: beta at the start.
        target: nats; None: beta stays as it is.
        unit: whether the target is a KL per response ("sequence": summed over its tokens, then averaged) or per token.
        horizon: responses until beta may have changed by 20 %.
        estimator, limit: of the KL of a token, see `token_kl`; the controller's target is about k1 in any case.
    """

    def __init__(
        self,
        coefficient: float = 0.05,
        *,
        target: float | None = None,
        unit: Unit = "sequence",
        horizon: int = 10_000,
        estimator: KlEstimator = "k1",
        limit: float | None = None,
    ) -> None:
        if coefficient < 0 or horizon < 1 or (target is not None and target <= 0):
            raise ValueError(
                f"coefficient={coefficient} must not be negative, target={target} and horizon={horizon} must be "
                "positive"
            )
        if target is not None and coefficient == 0:
            raise ValueError("target needs coefficient above 0: a factor cannot raise it from 0")
        if estimator not in ("k1", "k2", "k3"):
            raise ValueError(f"estimator={estimator} is none of k1, k2, k3")
        if unit not in ("sequence", "token"):
            raise ValueError(f"unit={unit} is none of sequence, token")
        self.coefficient, self.target, self.unit, self.horizon = coefficient, target, unit, horizon
        self.estimator, self.limit = estimator, limit

    def update(self, *, per_sequence: float, per_token: float, responses: int) -> None:
        """Adapt beta to the KL of so many responses, counted over all ranks."""
        if self.target is not None:
            # vwxyzjn/lm-human-preference-details ccc1953 train_policy_accelerate.py:293-302 (per sequence);
            # volcengine/verl 1dda039b9 verl/trainer/ppo/core_algos.py:153-174 is fed means over tokens: other targets.
            kl = per_sequence if self.unit == "sequence" else per_token
            error = min(max(kl / self.target - 1, -0.2), 0.2)
            self.coefficient *= 1 + error * responses / self.horizon

    def state_dict(self) -> dict[str, float]:
        """The coefficient."""
        return {"coefficient": self.coefficient}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on with a saved coefficient."""
        self.coefficient = state["coefficient"]
