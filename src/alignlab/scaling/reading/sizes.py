"""How large a run was: parameters, FLOPs, tokens, loss or steps, from what it has left."""

import json
import math
from pathlib import Path
from typing import Any

import yaml

from alignlab.files.foreign_yaml import yaml_text
from alignlab.scaling.reading.kinds import Kind
from alignlab.studies.reading.tables import Logged, logged

_LENGTHS = ("context_length", "block_size", "sequence_length")  # of rows that are all as long
_CUT = "plain_text.PlainText"  # rows of max_length


def size_of(run_dir: Path, kind: Kind) -> float:
    """A run's place on the axis; that of `loss` is 1 / loss, so that better models lie to the right.

    Raises:
        ValueError: the run doesn't say; one line with what would.
    """
    told, curves = _json(run_dir / "result.json"), logged(run_dir)
    found = {"params": _params, "flops": _flops, "tokens": _tokens, "loss": _loss, "step": _steps}[kind](
        run_dir, told, curves
    )
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


def _params(run_dir: Path, told: dict[str, Any], curves: Logged) -> float | None:
    return _number(told.get("parameters")) or _counted(run_dir)


def _flops(run_dir: Path, told: dict[str, Any], curves: Logged) -> float | None:
    if (own := _number(told.get("flops"))) is not None:
        return own
    each = _last(curves, "train/gflops_per_sample")
    samples = _samples(run_dir, told)
    return None if each is None or samples is None else each * 1e9 * samples


def _tokens(run_dir: Path, told: dict[str, Any], curves: Logged) -> float | None:
    own = _number(told.get("tokens")) or _last(curves, "train/tokens")
    if own is not None:
        return own
    data, samples = _config(run_dir).get("data") or {}, _samples(run_dir, told)
    names = (*_LENGTHS, "max_length") if _CUT in str(data.get("rows")) else _LENGTHS
    length = next((value for name in names if (value := _number(data.get(name))) is not None), None)
    return None if length is None or samples is None else length * samples


def _loss(run_dir: Path, told: dict[str, Any], curves: Logged) -> float | None:
    loss = _last(curves, "val/loss")
    return 1 / loss if loss else None


def _steps(run_dir: Path, told: dict[str, Any], curves: Logged) -> float | None:
    return _number(told.get("steps"))


def _samples(run_dir: Path, told: dict[str, Any]) -> float | None:
    """Rows that training has seen, over all ranks and accumulated batches."""
    config = _config(run_dir)
    data = config.get("data") or {}
    batch = (
        None if data.get("batch_ramp") else _number(data.get("batch_size"))
    )  # a ramp's rows aren't steps times batch
    steps = _number(told.get("steps"))
    if batch is None or steps is None:
        return None
    accumulated = _number((config.get("trainer") or {}).get("accumulate_grad_batches")) or 1
    return steps * batch * accumulated * (_number(told.get("world_size")) or 1)


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


def _config(run_dir: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(yaml_text(run_dir / "config.yaml"))
    except ValueError:
        return {}
    return config if isinstance(config, dict) else {}


def _last(curves: Logged, name: str) -> float | None:
    if curves.curves.get(name):
        return next((v for _, v in reversed(curves.curves[name]) if math.isfinite(v)), None)
    return curves.last.get(name)


def _json(file: Path) -> dict[str, Any]:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None
