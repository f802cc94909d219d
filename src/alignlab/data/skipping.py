"""What is left out of somebody's lists and pictures: said one by one, counted, and too much of it ends the run."""

import logging

log = logging.getLogger(__name__)


class Skipped:
    """Told what is wrong with a row or a picture that is left out.

    Args:
        most: so many may be left out by one process.

    Attributes:
        reasons: what was wrong, in the order in which it was met.
    """

    def __init__(self, most: int) -> None:
        if most < 0:
            raise ValueError(f"max_skipped is {most}; it must be at least 0")
        self.most, self.reasons = most, []

    def __call__(self, error: ValueError) -> None:
        """Notes and says it. Raises ValueError beyond the limit."""
        self.reasons.append(str(error))
        log.warning("left out, number %d: %s", len(self.reasons), error)
        if len(self.reasons) > self.most:
            raise ValueError(
                f"max_skipped is {self.most}; more rows and pictures than that can't be read, the last: {error}"
            )
