"""Reward models: a language model or encoder with a scalar head, saved in Hugging Face's format with the head beside
it.

Legend: B rows, T tokens.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from alignlab.files.checksums import check_sums
from alignlab.files.kinds import line_of
from alignlab.files.safetensors import read_safetensors
from alignlab.models.language.loading import load_language_model
from alignlab.models.language.lora import merged
from alignlab.models.language.paths import export_folder, resolve_model
from alignlab.models.language.pretrained_files import from_folder
from alignlab.models.language.trunk import hidden_states, trunk_of
from alignlab.models.language.value_head import Pool, ScalarHead, pooled

HEAD_FILE = "score_head.safetensors"


class RewardModel(nn.Module):
    """ids (B, T), mask (B, T) -> rewards (B,), in float32: a text's hidden states pooled by its mask, and a scalar
    head.

    `mean` and `std` are those of the rewards of held-out texts, for `normalised`; sigma(scale (r_1 - r_2)) is
    calibrated: it estimates the share of raters that prefers the first of two texts.
    """

    def __init__(self, model: nn.Module, pool: Pool = "last") -> None:
        super().__init__()
        if pool not in ("last", "mean"):
            raise ValueError(f"pool={pool} is none of last, mean")
        self.model, self.pool = model, pool
        output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        if output is not None and output.weight is not model.get_input_embeddings().weight:
            output.requires_grad_(False)  # nobody calls it; DDP waits for the gradient of every trainable parameter
        self.head = ScalarHead(trunk_of(model).config.hidden_size)
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("std", torch.ones(1))
        self.register_buffer("scale", torch.ones(1))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.head(pooled(_hidden(self.model, ids, mask), mask, self.pool))

    def normalised(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(r - mean) / std, (B,)."""
        return (self(ids, mask) - self.mean) / self.std

    def preference(self, first: Tensor, second: Tensor) -> Tensor:
        """Estimated share of raters that prefers texts with rewards `first` over texts with rewards `second`."""
        return (self.scale * (first - second)).sigmoid()

    def save_head(self, folder: str | Path) -> None:
        """Writes head, mean, standard deviation and scale beside the exported model."""
        content = {name: tensor.detach().float().cpu().contiguous() for name, tensor in self._head_tensors().items()}
        save_file(content, Path(folder) / HEAD_FILE, metadata={"pool": self.pool})

    def load_head(self, folder: str | Path) -> None:
        """Reads what `save_head` wrote."""
        check_sums(folder, "reward")
        content = read_safetensors(Path(folder) / HEAD_FILE, "reward")
        with torch.no_grad():
            for name, tensor in self._head_tensors().items():
                tensor.copy_(content[name])

    def _head_tensors(self) -> dict[str, Tensor]:
        buffers = {"mean": self.mean, "std": self.std, "scale": self.scale}
        return {"weight": self.head.weight, "bias": self.head.bias, **buffers}


def load_reward_model(run_dir: str | Path, device: str = "cpu") -> RewardModel:
    """The reward model of a run directory (its `export/`) or of such a folder: frozen, in eval mode, on `device`.

    Raises:
        ValueError: no export, or one without a score head.
    """
    from transformers import AutoModel

    folder = export_folder(run_dir)
    if not (folder / HEAD_FILE).is_file():
        raise ValueError(f"{run_dir} holds no reward model: there is no {folder / HEAD_FILE}")
    base, adapter = resolve_model(str(folder))
    if adapter is None:
        trunk = from_folder(AutoModel, base, trunk=True, dtype=torch.float32)
    else:
        trunk = trunk_of(merged(load_language_model(str(folder))))
    model = RewardModel(trunk, _pool(folder))
    model.load_head(folder)
    return model.requires_grad_(False).eval().to(device)


def reward_head(model: nn.Module, folder: str | Path) -> RewardModel:
    """The head of an exported reward adapter over another model of the same base; run it with `score_with` under the
    adapter.

    Raises:
        ValueError: there is no head in the folder.
    """
    if not (Path(folder) / HEAD_FILE).is_file():
        raise ValueError(f"{folder} holds no reward model: there is no {HEAD_FILE}")
    reward_model = RewardModel(model, _pool(Path(folder)))
    reward_model.load_head(folder)
    return reward_model


def score_with(model: nn.Module, head: "RewardModel") -> Callable[[Tensor, Tensor], Tensor]:
    """A scorer that runs `head` on another trunk, such as a policy's base under its adapter "reward"."""

    def score(ids: Tensor, mask: Tensor) -> Tensor:
        return head.head(pooled(_hidden(model, ids, mask), mask, head.pool))

    return score


def _hidden(model: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    return hidden_states(model, ids, mask, position=(mask.long().cumsum(1) - 1).clamp_min(0))


def _pool(folder: Path) -> Pool:
    from safetensors import safe_open

    try:
        with safe_open(folder / HEAD_FILE, "pt") as file:
            return file.metadata()["pool"]
    except Exception as error:  # SafetensorError, or no metadata
        raise ValueError(f"reward: {folder / HEAD_FILE} is damaged ({line_of(error)})") from error
