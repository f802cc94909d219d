"""Which files of a repository are wanted: by patterns, or what `from_pretrained` needs of a model."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from alignlab.hub.assets import Asset
from alignlab.hub.remote_file import RemoteFile

# Weights of other libraries, what trainers leave behind, pictures of the model's page.
_OTHERS = re.compile(
    r"(^|/)(\.gitattributes|\.gitignore|tf_model|flax_model|rust_model|model\.ckpt|training_args\.bin|optimizer\.pt"
    r"|scheduler\.pt|rng_state|events\.out\.)"
    r"|\.(h5|msgpack|ot|onnx|onnx_data|tflite|mlmodel|mlpackage|gguf|ggml|nemo|pdparams|zip|gz)$"
    r"|\.(png|jpe?g|gif|svg|mp4|pdf|ipynb)$"
    r"|^(onnx|openvino|coreml|original|runs|checkpoint-\d+|logs|images|assets|figures)/"
)
_SAFETENSORS = re.compile(r"\.safetensors(\.index\.json)?$")
_PICKLES = re.compile(r"\.(bin|pth?|ckpt|pkl|pickle)(\.index\.json)?$")
_USUAL = re.compile(
    r"(^|/)(model|adapter_model|open_clip_model|pytorch_model|diffusion_pytorch_model)(-\d+-of-\d+)?\.\w+$"
)
_SHARD = re.compile(r"-\d+-of-\d+\.|\.index\.json$")


def wanted(files: Sequence[RemoteFile], asset: Asset) -> list[RemoteFile]:
    """The files of an asset, in the tree's order.

    Raises:
        ValueError: no file fits the patterns; the weights are in a pickle alone, and `pickle` isn't set.
    """
    if asset.include:
        chosen = [file for file in files if _fits(file.path, asset.include)]
    elif asset.whole or asset.type == "dataset":
        chosen = list(files)
    else:
        chosen = _of_model(files, asset)
    chosen = [file for file in chosen if not _fits(file.path, asset.exclude)]
    if not chosen:
        patterns = f"include={list(asset.include)}, exclude={list(asset.exclude)}"
        raise ValueError(f"{asset.name}: none of its {len(files)} files is wanted ({patterns})")
    return chosen


def _of_model(files: Sequence[RemoteFile], asset: Asset) -> list[RemoteFile]:
    rest = [file for file in files if not _OTHERS.search(file.path)]
    rest = [file for file in rest if asset.code or not file.path.endswith(".py")]
    safe = [file for file in rest if _SAFETENSORS.search(file.path)]
    pickles = [file for file in rest if _PICKLES.search(file.path)]
    weights = _one_form(safe or pickles)
    if not safe and pickles and not asset.pickle:
        raise ValueError(
            f"{asset.name} has its weights in a pickle alone ({pickles[0].path}), and loading one runs what is in it: "
            "--pickle takes it all the same"
        )
    chosen = {file.path for file in weights}
    return [file for file in rest if file.path in chosen or (file not in safe and file not in pickles)]


def _one_form(weights: list[RemoteFile]) -> list[RemoteFile]:
    """Without variants (`model.fp16.safetensors`) beside the usual name; one file rather than the same in shards."""
    usual = [file for file in weights if _USUAL.search(file.path) or file.path.endswith(".index.json")] or weights
    whole = [file for file in usual if not _SHARD.search(file.path)]
    # An adapter beside shards is no substitute for them: only a file of at least half of their size is.
    shards = [file for file in usual if _SHARD.search(file.path)]
    if shards and whole and max(file.size for file in whole) * 2 >= sum(file.size for file in shards):
        return whole
    return usual


def _fits(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern + "*" if pattern.endswith("/") else pattern) for pattern in patterns)
