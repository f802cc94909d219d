"""A released CLIP or SigLIP on disk: what it is, its weights, and what its own processor does with pictures."""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor

from alignlab.files.checksums import check_sums
from alignlab.files.kinds import few, line_of
from alignlab.files.torchscript import is_torchscript, read_torchscript
from alignlab.files.weights import read_file, weights_of
from alignlab.hub.hint import fetch_hint
from alignlab.models.language.pretrained_files import from_folder
from alignlab.models.released.open_clip_layout import from_open_clip, sizes_of_config, sizes_of_weights
from alignlab.models.released.sizes import ClipSizes
from alignlab.models.released.transformers_layout import from_transformers, sizes_of
from alignlab.types.recipes import PictureRecipe

OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
)
TRANSFORMERS_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # PIL's numbers


class Released(NamedTuple):
    """What is known of a released net before its weights are read."""

    path: str  # as it was given
    place: Path  # a folder, or a file of OpenAI's weights
    layout: Literal["transformers", "open_clip"]
    sizes: ClipSizes
    picture: PictureRecipe


def read_released(path: str, key: str = "path") -> Released:
    """What a hub id, a folder in transformers' or open_clip's format, or a file of OpenAI's is. Nothing is downloaded.

    Args:
        key: what gave the path, for messages.

    Raises:
        ValueError: there is no such thing, or it is no net that is read here.
    """
    place = _place(path, key)
    try:
        stamp = tuple(sorted((f.name, f.stat().st_mtime_ns) for f in (place.iterdir() if place.is_dir() else [place])))
        return _read(path, place, stamp)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{key}={path}: its configs lack what a CLIP or SigLIP needs ({line_of(error)})") from error
    except ValueError as error:
        raise ValueError(f"{key}={path}: {str(error).removeprefix('path: ')}") from error


def weights_of_released(released: Released) -> dict[str, Tensor]:
    """Its weights under `Clip`'s names. Raises ValueError, one line, for damaged files and what doesn't fit."""
    try:
        if released.layout == "transformers":
            from transformers import AutoModel

            return from_transformers(from_folder(AutoModel, str(released.place)).state_dict())
        return from_open_clip(_state(released.place), released.sizes)
    except ValueError as error:
        raise ValueError(f"path={released.path}: no CLIP or SigLIP could be read ({error})") from error


def _place(path: str, key: str) -> Path:
    place = Path(path).expanduser()
    if place.exists():
        return place
    from huggingface_hub import try_to_load_from_cache

    if path.count("/") == 1 and not path.startswith((".", "/", "~")):
        for name in ("config.json", OPEN_CLIP_CONFIG):
            if isinstance(file := try_to_load_from_cache(path, name), str):
                return Path(file).parent
    raise ValueError(
        f"{key}={path} is neither a folder nor a file nor a repository in the hub's cache{fetch_hint(path)}"
    )


@lru_cache(maxsize=16)
def _read(path: str, place: Path, _: tuple) -> Released:
    if place.is_file():
        if place.suffix == ".json":
            raise ValueError("that is a config; give the folder, or the file of weights")
        beside = place.with_name(OPEN_CLIP_CONFIG)
        if beside.is_file():
            return _of_open_clip(path, place, _json(beside))
        state = _state(place)
        if not is_torchscript(place) and "input_resolution" not in state:
            if "visual.conv1.weight" not in state and "visual.layer1.0.conv1.weight" not in state:
                raise ValueError("these are no weights of CLIP in OpenAI's layout")
            raise ValueError(
                f"the file alone doesn't say how wide a head is and which activation the net has: lay its "
                f"{OPEN_CLIP_CONFIG} beside it"
            )
        sizes = sizes_of_weights(state)
        picture = PictureRecipe(sizes.image_size, CLIP_MEAN, CLIP_STD, "crop", "bicubic", "even")
        return Released(path, place, "open_clip", sizes, picture)
    check_sums(place, "path", lambda name: name.endswith(".json"))
    config = _json(place / "config.json") if (place / "config.json").is_file() else {}
    if config.get("model_type") in ("clip", "siglip") and (
        not (place / OPEN_CLIP_CONFIG).is_file() or any((place / name).is_file() for name in TRANSFORMERS_WEIGHTS)
    ):
        return _of_transformers(path, place)
    if (place / OPEN_CLIP_CONFIG).is_file():
        return _of_open_clip(path, place, _json(place / OPEN_CLIP_CONFIG))
    there = f"its config.json says {config['model_type']}" if config.get("model_type") else "there is no config"
    raise ValueError(f"{there}; a released CLIP or SigLIP has a config.json of either, or an {OPEN_CLIP_CONFIG}")


def _of_open_clip(path: str, place: Path, config: Mapping[str, Any]) -> Released:
    sizes = sizes_of_config(config["model_cfg"])
    said = config.get("preprocess_cfg", {})
    resize = {"shortest": "crop", "squash": "squash"}.get(said.get("resize_mode", "shortest"))
    if resize is None:
        raise ValueError(f"resize_mode={said['resize_mode']} is none of shortest, squash")
    picture = PictureRecipe(
        sizes.image_size,
        tuple(said.get("mean", CLIP_MEAN)),
        tuple(said.get("std", CLIP_STD)),
        resize,
        said.get("interpolation", "bicubic"),
        "even",
    )
    return Released(path, place, "open_clip", sizes, _checked(picture))


def _of_transformers(path: str, place: Path) -> Released:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
    except Exception as error:  # whatever a damaged config leads to
        raise ValueError(f"its config.json can't be read ({line_of(error)})") from error
    sizes = sizes_of(config)
    return Released(path, place, "transformers", sizes, _checked(_picture(place, sizes)))


def _picture(place: Path, sizes: ClipSizes) -> PictureRecipe:
    """What preprocessor_config.json says, or in newer folders a part of processor_config.json."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (place / name).is_file():
            said = _json(place / name)
            said = said.get("image_processor", said)
            break
    else:
        raise ValueError("it has no preprocessor_config.json, so nobody knows how its pictures are to be made")
    off = [key for key in ("do_resize", "do_rescale", "do_normalize") if said.get(key, True) is False]
    if off or abs(said.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-9:
        raise ValueError(f"its processor has {', '.join(off) or 'a rescale_factor other than 1/255'}, which isn't read")
    size = said.get("size", {"height": sizes.image_size, "width": sizes.image_size})
    size = size if isinstance(size, dict) else {"height" if sizes.siglip else "shortest_edge": size, "width": size}
    crop = said.get("crop_size", sizes.image_size)
    crop = crop.get("height") if isinstance(crop, dict) else crop
    side = size.get("shortest_edge", size.get("height"))
    cropped = "shortest_edge" in size
    if (not cropped and size.get("width") != side) or (
        cropped and (crop != side or said.get("do_center_crop") is False)
    ):
        raise ValueError(
            f"its processor makes pictures of size={size}, crop_size={crop}: only squares of one size are read"
        )
    if side != sizes.image_size:
        raise ValueError(f"its processor makes pictures of {side} pixels, its net is for {sizes.image_size}")
    interpolation = _RESAMPLING.get(said.get("resample", 3))
    if interpolation is None:
        raise ValueError(
            f"its processor has resample={said['resample']}, which is none of {few(list(map(str, _RESAMPLING)))}"
        )
    mean, std = (said.get(key, default) for key, default in (("image_mean", None), ("image_std", None)))
    half = (0.5, 0.5, 0.5)
    return PictureRecipe(
        side,
        tuple(mean or (half if sizes.siglip else CLIP_MEAN)),
        tuple(std or (half if sizes.siglip else CLIP_STD)),
        "crop" if cropped else "squash",
        interpolation,
        "down",
    )


def _checked(picture: PictureRecipe) -> PictureRecipe:
    for key, values in (("mean", picture.mean), ("std", picture.std)):
        if len(values) != 3 or not all(isinstance(value, int | float) for value in values):
            raise ValueError(f"its pictures' {key} is {list(values)}; it must be three numbers")
    if picture.interpolation not in _RESAMPLING.values():
        raise ValueError(f"interpolation={picture.interpolation} is none of {', '.join(_RESAMPLING.values())}")
    return picture


def _state(place: Path) -> dict[str, Tensor]:
    if place.is_dir():
        check_sums(place, "path")
        files = [place / name for name in OPEN_CLIP_WEIGHTS if (place / name).is_file()]
        if not files:
            raise ValueError(f"there are no weights in it ({few(list(OPEN_CLIP_WEIGHTS))})")
        place = files[0]
    if is_torchscript(place):
        return read_torchscript(place, "path")
    return weights_of(read_file(place, "path"), place, "path")


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file.name} can't be read ({line_of(error)})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} is no object with keys")
    return content
