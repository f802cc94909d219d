"""LoRA adapters (arXiv:2106.09685) on our own decoder: read from a PEFT folder or from a live PEFT model, cut like the matrices they belong to.

Legend: r rank, I input width, O output width of a module.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from alignlab.inference.architecture import Architecture, Piece, Shard, joined
from alignlab.inference.decoder import Layer
from alignlab.inference.linears import LowRank, SideBySide
from alignlab.inference.weights import WeightFiles, plain_name


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
                found = self.updates[module]
                columns = slice(firsts[module], firsts[module] + len(found.down))
                up[row : row + stop - start, columns] = found.up[start:stop] * found.scale
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
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    if config.get("peft_type") != "LORA" or config.get("use_dora"):
        kind = "DoRA" if config.get("use_dora") else config.get("peft_type")
        raise ValueError(
            f"adapter={folder}: {kind} is not built into our own decoder, only LoRA; use backend=transformers"
        )
    if config.get("modules_to_save"):
        saved = ", ".join(config["modules_to_save"])
        raise ValueError(
            f"adapter={folder}: it replaces whole modules ({saved}), not only LoRA; use backend=transformers"
        )
    if not (folder / "adapter_model.safetensors").is_file():
        raise ValueError(f"adapter={folder}: there is no adapter_model.safetensors")
    files = WeightFiles(folder, "adapter_model.safetensors")
    known = {module.format(i=i) for module in architecture.modules() for i in range(architecture.layers)}
    updates = {}
    for name in files.names:
        found = re.fullmatch(r"(.+)\.lora_A(\.\w+)?\.weight", name)
        if found is None:
            continue
        module = plain_name(found[1]).removeprefix(architecture.prefix)
        if module not in known:
            raise ValueError(
                f"adapter={folder}: {module} is no linear of this model's blocks; was it trained on another one?"
            )
        down, up = (files.read(each).to(device) for each in (name, name.replace("lora_A", "lora_B")))
        updates[module] = LowRank(down, up, _scale(config, module, len(down)))
    files.close()
    return Adapter(updates)


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
    found: dict[str, dict[str, LowRank]] = {}
    for name, module in model.named_modules():
        if not hasattr(module, "lora_A") or getattr(module, "merged", False):
            continue
        plain = plain_name(name + ".").removesuffix(".").removeprefix(architecture.prefix)
        for adapter, down in module.lora_A.items():
            weights: tuple[Tensor, Tensor] = (down.weight.detach(), module.lora_B[adapter].weight.detach())
            found.setdefault(adapter, {})[plain] = LowRank(*weights, module.scaling[adapter])
    return {name: Adapter(updates, live=True) for name, updates in found.items()}
