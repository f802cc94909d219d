"""How large a run was: parameters, FLOPs, tokens, loss or steps, from what it has left."""

import json
import math
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from alignlab.files.foreign_yaml import yaml_text
from alignlab.scaling.reading.kinds import Kind
from alignlab.studies.reading.tables import Logged, logged

_LENGTHS = ("context_length", "block_size", "sequence_length")  # of rows that are all as long
_CUT = "plain_text.PlainText"  # rows of max_length


class Left:
    """What a run has left, each file read when it is first asked for."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    @cached_property
    def result(self) -> dict[str, Any]:
        """result.json; empty where there is none."""
        try:
            told = json.loads((self.run_dir / "result.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return told if isinstance(told, dict) else {}

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.yaml; empty where there is none."""
        try:
            config = yaml.safe_load(yaml_text(self.run_dir / "config.yaml"))
        except ValueError:
            return {}
        return config if isinstance(config, dict) else {}

    @property
    def data(self) -> dict[str, Any]:
        return self.config.get("data") or {}

    @cached_property
    def logged(self) -> Logged:
        """Curves and last values."""
        return logged(self.run_dir)

    def last(self, name: str) -> float | None:
        """The last finite value of a metric."""
        if curve := self.logged.curves.get(name):
            return next((v for _, v in reversed(curve) if math.isfinite(v)), None)
        return self.logged.last.get(name)

    @property
    def samples(self) -> float | None:
        """Rows that training has seen, over all ranks and accumulated batches; a ramp's aren't steps times batch."""
        batch = None if self.data.get("batch_ramp") else _number(self.data.get("batch_size"))
        steps = _number(self.result.get("steps"))
        if batch is None or steps is None:
            return None
        accumulated = _number((self.config.get("trainer") or {}).get("accumulate_grad_batches")) or 1
        return steps * batch * accumulated * (_number(self.result.get("world_size")) or 1)


def size_of(run_dir: Path, kind: Kind) -> float:
    """A run's place on the axis; that of `loss` is 1 / loss, so that better models lie to the right.

    Raises:
        ValueError: the run doesn't say; one line with what would.
    """
    found = {"params": _params, "flops": _flops, "tokens": _tokens, "loss": _loss, "step": _steps}[kind](Left(run_dir))
    if found is None or not math.isfinite(found) or found <= 0:
        raise ValueError(f"{run_dir} doesn't say its {kind}: {_ASK[kind]}")
    return float(found)


_ASK = {
    "params": 'result.json has no "parameters", and there is no checkpoint to count them in',
    "flops": 'result.json has no "flops", and metrics.csv no train/gflops_per_sample (callbacks=[default,flops])',
    "tokens": 'result.json has no "tokens", and config.yaml no one length for all rows with one batch size',
    "loss": "metrics.csv has no val/loss",
    "step": 'result.json has no "steps"',
}


def _params(left: Left) -> float | None:
    return _number(left.result.get("parameters")) or _counted(left.run_dir)


def _flops(left: Left) -> float | None:
    if (own := _number(left.result.get("flops"))) is not None:
        return own
    each, samples = left.last("train/gflops_per_sample"), left.samples
    return None if each is None or samples is None else each * 1e9 * samples


def _tokens(left: Left) -> float | None:
    own = _number(left.result.get("tokens")) or left.last("train/tokens")
    if own is not None:
        return own
    names = (*_LENGTHS, "max_length") if _CUT in str(left.data.get("rows")) else _LENGTHS
    length = next((value for name in names if (value := _number(left.data.get(name))) is not None), None)
    return None if length is None or left.samples is None else length * left.samples


def _loss(left: Left) -> float | None:
    loss = left.last("val/loss")
    return 1 / loss if loss else None


def _steps(left: Left) -> float | None:
    return _number(left.result.get("steps"))


def _counted(run_dir: Path) -> float | None:
    """Parameters by the shapes of exported weights or of the net in the newest checkpoint."""
    from alignlab.files.safetensors import safetensors_header  # torch

    exported = sorted((run_dir / "export").glob("*.safetensors"))
    if exported:
        return float(sum(math.prod(e["shape"]) for file in exported for e in safetensors_header(file)[1].values()))
    file = run_dir / "checkpoints" / "last.ckpt"
    if not file.is_file():
        return None
    from alignlab.files.weights import read_file, weights_of

    weights = weights_of(read_file(file, "params"), file, "params")
    net = [each for name, each in weights.items() if name.startswith("net.")] or list(weights.values())
    return float(sum(each.numel() for each in net if each.is_floating_point()))


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None
