"""LoRA adapters (arXiv:2106.09685) on our own decoder: read from a PEFT folder or from a live PEFT model, cut like the
matrices they belong to.

Legend: r rank, I input width, O output width of a module.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alignlab.files.checksums import check_sums
from alignlab.files.safetensors import safetensors_header
from alignlab.inference.native.architecture import Architecture, Piece, Shard, joined
from alignlab.inference.native.linears import Layer, LowRank, SideBySide
from alignlab.inference.native.weights import WeightFiles, plain_name
from alignlab.models.language.paths import adapter_config

# Settings of PEFT's LoRA that change what it computes, beside rank, alpha and rsLoRA.
_KINDS = {
    "use_dora": "DoRA",
    "lora_bias": "LoRA with biases (lora_bias)",
    "use_qalora": "QALoRA",
    "alora_invocation_tokens": "aLoRA",
    "layer_replication": "replication of layers",
    "target_parameters": "LoRA on single parameters (target_parameters)",
    "arrow_config": "Arrow",
}
_MORE = ("bias", "modules_to_save", "trainable_token_indices")


class Adapter:
    """An adapter's matrices by module.

    Args:
        updates: name of a module without the architecture's prefix -> its update.
        live: whether the matrices belong to a model that is being trained: then they are never copied.
    """

    def __init__(self, updates: Mapping[str, LowRank], live: bool = False) -> None:
        self.updates, self.live = updates, live

    def install(self, layer: Layer, index: int, architecture: Architecture, shard: Shard) -> None:
        """Puts the updates of block `index` onto its linears."""
        for part, linear in layer.linears().items():
            pieces, dim = architecture.pieces(part, shard)
            own = [piece._replace(module=piece.module.format(i=index)) for piece in pieces]
            if isinstance(linear, SideBySide):
                for piece, below in zip(joined(own), linear.parts, strict=True):
                    below.update = self._of_part([piece], dim)
            else:
                linear.update = self._of_part(own, dim)

    def _of_part(self, pieces: list[Piece], dim: int) -> LowRank | None:
        """One update for the stacked rows of several modules."""
        pieces = joined(pieces)
        if not any(piece.module in self.updates for piece in pieces):
            return None
        if len(pieces) == 1:
            down, up, scale = self.updates[pieces[0].module]
            rows = slice(pieces[0].start, pieces[0].stop)
            return LowRank(down[:, rows], up, scale) if dim == 1 else LowRank(down, up[rows], scale)
        assert dim == 0 and not self.live, "only matrices that are side by side are stacked"
        modules = list(dict.fromkeys(piece.module for piece in pieces if piece.module in self.updates))
        downs = [self.updates[module].down for module in modules]
        firsts = dict(zip(modules, [0, *torch.tensor([len(d) for d in downs]).cumsum(0).tolist()], strict=False))
        up = downs[0].new_zeros(sum(p.stop - p.start for p in pieces), sum(map(len, downs)))
        row = 0
        for module, start, stop in pieces:
            if module in self.updates:
                update = self.updates[module]
                columns = slice(firsts[module], firsts[module] + len(update.down))
                up[row : row + stop - start, columns] = update.up[start:stop] * update.scale
            row += stop - start
        return LowRank(torch.cat(downs), up, 1.0)


def remove(layer: Layer) -> None:
    """Back to the base weights."""
    for linear in layer.linears().values():
        linear.update = None
        for below in getattr(linear, "parts", ()):
            below.update = None


def read_adapter(folder: str | Path, architecture: Architecture, device: torch.device | str = "cpu") -> Adapter:
    """A PEFT folder's LoRA; a `ValueError` names what is missing or of another kind."""
    folder = Path(folder)
    if not (folder / "adapter_config.json").is_file():
        raise ValueError(f"adapter={folder}: there is no adapter_config.json")
    check_sums(folder, f"adapter={folder}")
    config = read_config(folder)
    if reason := _unread(config):
        raise ValueError(
            f"adapter={folder}: {reason} not built into our own decoder, only LoRA; use backend=transformers"
        )
    if not (folder / "adapter_model.safetensors").is_file():
        raise ValueError(f"adapter={folder}: there is no adapter_model.safetensors")
    safetensors_header(folder / "adapter_model.safetensors")
    files = WeightFiles(folder, "adapter_model.safetensors")
    sizes = _sizes(architecture)
    updates, names = {}, set(files.names)
    for name in files.names:
        match = re.fullmatch(r"(.+)\.lora_A(\.\w+)?\.weight", name)
        if match is None or (other := name.replace("lora_A", "lora_B")) not in names:
            continue
        names -= {name, other}
        module = plain_name(match[1] + ".").removesuffix(".").removeprefix(architecture.prefix)
        if module not in sizes:
            raise ValueError(
                f"adapter={folder}: {module} is no linear of this model's blocks; was it trained on another one? "
                "backend=transformers knows more layers"
            )
        outputs, inputs = sizes[module]
        if (*files.shape(other)[:1], *files.shape(name)[1:]) != (outputs, inputs) or files.shape(other)[
            1:
        ] != files.shape(name)[:1]:
            a, b = files.shape(name), files.shape(other)
            raise ValueError(
                f"adapter={folder}: {module} takes {inputs} numbers to {outputs} in this model, its matrices are {a} "
                f"and {b}: it was trained on another one"
            )
        down, up = (files.read(each).to(device) for each in (name, other))
        updates[module] = LowRank(down, up, _scale(config, module, len(down)))
    files.close()
    if names:
        few = ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        raise ValueError(f"adapter={folder}: {few} can't be used by our own decoder; use backend=transformers")
    if missing := [
        module for module in sizes if module not in updates and _aimed_at(config, architecture.prefix + module)
    ]:
        raise ValueError(
            f"adapter={folder}: it has no matrices for {missing[0]}"
            + (f" and {len(missing) - 1} more" if missing[1:] else "")
            + f", which its target_modules name in this model of {architecture.layers} layers; "
            "was it trained on a smaller one?"
        )
    return Adapter(updates)


def read_config(folder: Path) -> dict[str, Any]:
    """What is in adapter_config.json. Raises ValueError, one line, if that is no JSON object."""
    file, config = folder / "adapter_config.json", adapter_config(folder)
    alpha = config.get("lora_alpha")
    if not isinstance(config.get("target_modules"), str | list | None):
        raise ValueError(f"adapter={folder}: {file.name} is no PEFT config")
    for key in ("alpha_pattern", "rank_pattern"):
        numbers = config.get(key) or {}
        known = isinstance(numbers, dict) and all(type(value) in (int, float) for value in numbers.values())
        if not known:
            raise ValueError(f"adapter={folder}: {file.name} says {key}={config[key]}; it must be numbers by name")
    if config.get("peft_type") == "LORA" and (isinstance(alpha, bool) or not isinstance(alpha, int | float)):
        raise ValueError(f"adapter={folder}: {file.name} says lora_alpha={alpha}; it must be a number")
    return config


def _unread(config: Mapping[str, Any]) -> str | None:
    """What an adapter has besides the plain LoRA of this file, with its verb."""
    if config.get("peft_type") != "LORA":
        return f"{config.get('peft_type')} is"
    for key, kind in _KINDS.items():
        if config.get(key):
            return f"{kind} is"
    if config.get("bias", "none") != "none":
        return f"trained biases (bias={config['bias']}) are"
    for key, kind in (("modules_to_save", "whole modules"), ("trainable_token_indices", "trained tokens")):
        if config.get(key):
            return f"{kind} ({key}: {str(config[key])[:80]}) are"
    return None


def _sizes(architecture: Architecture) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of every linear of the blocks."""
    sizes: dict[str, tuple[int, int]] = {}
    for part in ("qkv", "out", "up", "down"):
        pieces, dim = architecture.pieces(part, architecture.whole())
        stop = {piece.module: max(p.stop for p in pieces if p.module == piece.module) for piece in pieces}
        for module, size in stop.items():
            for i in range(architecture.layers):
                sizes[module.format(i=i)] = (size, architecture.width) if dim == 0 else (architecture.width, size)
    return sizes


def _aimed_at(config: Mapping[str, Any], module: str) -> bool:
    """Whether an adapter's target_modules name a module; those of chosen layers, patterns and exceptions are left to
    PEFT.
    """
    if any(config.get(key) for key in ("layers_to_transform", "layers_pattern", "exclude_modules")):
        return False
    targets = config.get("target_modules") or []
    if isinstance(targets, str):
        return targets == "all-linear" or re.fullmatch(targets, module) is not None
    return any(module == target or module.endswith(f".{target}") for target in targets)


def _scale(config: Mapping, module: str, rank: int) -> float:
    """alpha / r, or alpha / sqrt(r) (arXiv:2312.03732)."""
    alpha = config["lora_alpha"]
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            alpha = value
            break
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def live_adapters(model: nn.Module, architecture: Architecture) -> dict[str, Adapter]:
    """All LoRA adapters of a live PEFT model by name; their matrices are seen as training changes them."""
    adapters: dict[str, dict[str, LowRank]] = {}
    sizes = _sizes(architecture)
    for adapter, config in getattr(model, "peft_config", {}).items():
        if reason := _unread(
            {key: getattr(config, key, None) for key in (*_KINDS, *_MORE)} | {"peft_type": config.peft_type.value}
        ):
            raise ValueError(
                f"adapter {adapter}: {reason} not built into our own decoder, only LoRA; use backend=transformers"
            )
    for name, module in model.named_modules():
        if not hasattr(module, "lora_A") or getattr(module, "merged", False):
            continue
        plain = plain_name(name + ".").removesuffix(".").removeprefix(architecture.prefix)
        if plain not in sizes:
            raise ValueError(
                f"the model has LoRA on {plain}, which is no linear of its blocks: our own decoder would leave it "
                "out; use backend=transformers"
            )
        for adapter, down in module.lora_A.items():
            weights: tuple[Tensor, Tensor] = (down.weight.detach(), module.lora_B[adapter].weight.detach())
            adapters.setdefault(adapter, {})[plain] = LowRank(*weights, module.scaling[adapter])
    return {name: Adapter(updates, live=True) for name, updates in adapters.items()}
