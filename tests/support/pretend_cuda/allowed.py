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


ALLOWED: tuple[Allowed, ...] = (
    Allowed(("run", "export"), "", "once a run: building, loading, tidying up, writing the last files"),
    Allowed(
        ("step", "warm step"),
        "throughput.py (_start)",
        "the clock starts when the device is idle: once at first, then after each validation",
    ),
    Allowed(("warm step",), "data/image_text/modules.py (normalise)", "mean and deviation go to the device once"),
    Allowed(("logging step",), "logger_connector.py (log_metrics)", "a row of metrics is written"),
    Allowed(("logging step",), "throughput.py", "the clock stands still, the device is idle, and its number is logged"),
    Allowed(("logging step",), "nan_report.py (_read)", "two numbers say whether a step so far went wrong"),
    Allowed(("logging step",), "callbacks/meters/progress.py", "one copy of what the line shows"),
    Allowed(
        ("warm step", "step"),
        "callbacks/meters/progress.py",
        "one copy of what the line shows, every 30 seconds at most",
    ),
    Allowed(("validation",), "throughput.py (_pause)", "the clock stands still"),
    Allowed(("validation",), "logger_connector.py (log_metrics)", "a row of metrics is written"),
    Allowed(("validation",), "callbacks/meters/progress.py", "one copy of what the line shows"),
    Allowed(("validation", "save"), "checkpoint.py (_floats)", "metrics go into the checkpoint; one copy"),
    Allowed(
        ("validation",),
        "evaluator.py (on_validation_epoch_end)",
        "evaluations give Python's numbers, which Lightning puts on the device to log them",
    ),
    Allowed(
        ("validation",), "evaluation/", "measures of a whole set are put together on the host, after the last batch"
    ),
    Allowed(
        ("save",), "nan_report.py (_read)", "no checkpoint replaces the last good one before it is known to be good"
    ),
    Allowed(("save",), "host_copies.py (host_copies)", "all tensors were copied; one wait"),
    Allowed(("validation",), "by_kind.py (_sums)", "what answers are worth by kind of question: one copy a validation"),
    Allowed(("validation",), "methods/reward.py (summarise)", "statistics of all pairs are fitted on the host"),
    Allowed(
        ("validation",),
        "systems/method_system.py (on_validation_epoch_end)",
        "what was fitted on the host is logged, once a validation",
        what="to ()",
    ),
    Allowed(
        ("validation",),
        "callbacks/evaluators/grounding.py (evaluate)",
        "boxes are on the host; a handful of pictures a batch",
    ),
    Allowed(
        ("validation",),
        "callbacks/evaluators/grounding.py (_play)",
        "boxes are on the host; a handful of pictures a batch",
    ),
    Allowed(("validation",), "rating_ranking.py (evaluate)", "rewards of all texts are ranked on the host"),
    Allowed(("validation", "save"), "dpo.py (_fetch)", "what the reference said so far; one copy"),
)
