"""Where the host may wait for the device, and why; everything else fails `tests/test_waits.py`."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Allowed:
    """Waits in these phases whose place contains `where` (lines are left out: `file (function)`), and `what` if given."""

    phases: tuple[str, ...]
    where: str
    reason: str
    what: str = ""

    def covers(self, phase: str, what: str, where: str) -> bool:
        """Whether this entry allows what was noted."""
        return phase in self.phases and self.what in what and self.where in re.sub(r":\d+ ", " ", where)


ALLOWED: tuple[Allowed, ...] = ()
