"""Intervals of what was counted."""

import numpy as np

LEVEL = 1.959964  # deviations of a 95 % interval


def wilson(share: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % interval of a share of n (JASA 22, 1927)."""
    n, square = np.maximum(n, 1), LEVEL**2
    middle = (share + square / (2 * n)) / (1 + square / n)
    reach = LEVEL / (1 + square / n) * np.sqrt(share * (1 - share) / n + square / (4 * n**2))
    return np.maximum(middle - reach, 0.0), np.minimum(middle + reach, 1.0)
