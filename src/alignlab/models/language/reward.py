"""Reward models: a language model or encoder with a scalar head, saved in Hugging Face's format with the head beside
it; of causal models as the `AutoModelForSequenceClassification` of transformers, which others read.

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
from alignlab.files.text import parse_json, read_text
from alignlab.models.language.ends import ends_of
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
    """The reward model of a run directory (its `export/`), of such a folder, or of one that holds a causal model of
    transformers' `AutoModelForSequenceClassification`: frozen, in eval mode, on `device`.

    Raises:
        ValueError: no export, or one without a score head.
    """
    from transformers import AutoModel

    folder = export_folder(run_dir)
    if not (folder / HEAD_FILE).is_file():
        if not holds_reward_model(folder):
            raise ValueError(f"{run_dir} holds no reward model: there is no {folder / HEAD_FILE}")
        return _of_classifier(folder).requires_grad_(False).eval().to(device)
    base, adapter = resolve_model(str(folder))
    if adapter is None:
        trunk = from_folder(AutoModel, base, trunk=True, dtype=torch.float32)
    else:
        trunk = trunk_of(merged(load_language_model(str(folder))))
    model = RewardModel(trunk, _pool(folder))
    model.load_head(folder)
    return model.requires_grad_(False).eval().to(device)


def holds_reward_model(folder: str | Path) -> bool:
    """Whether a folder has a reward head, or its config.json names a model that gives a text one number."""
    folder = Path(folder)
    if (folder / HEAD_FILE).is_file():
        return True
    file = folder / "config.json"
    config = parse_json(read_text(file, "model"), str(file)) if file.is_file() else None
    if not isinstance(config, dict):
        return False
    names, labels = config.get("architectures") or [""], config.get("id2label") or {}
    return str(names[0]).endswith("ForSequenceClassification") and len(labels) == 1


def save_classifier(reward: RewardModel, folder: str | Path) -> bool:
    """Writes a causal model that reads the last token's state as transformers' class of sequence classifiers.

    Its scores are those of the reward model without the bias, which the class lacks and comparisons don't see. It finds
    the last token by the padding id; where that ends texts too it would find the one before, so none is named, and
    transformers scores one text at a time.

    Returns:
        False, and nothing is written, for models that have no such class.
    """
    from transformers import AutoModelForSequenceClassification

    model = reward.model
    causal = hasattr(model, "get_output_embeddings") and model.get_output_embeddings() is not None
    if reward.pool != "last" or not causal or hasattr(model, "peft_config"):
        return False
    config = type(model.config).from_dict(model.config.to_dict())
    if type(config) not in AutoModelForSequenceClassification._model_mapping:
        return False
    config.num_labels = 1
    if config.pad_token_id in ends_of(config, None, None):
        config.pad_token_id = None
    with torch.device("meta"):
        classifier = AutoModelForSequenceClassification.from_config(config)
    if type(getattr(classifier, "score", None)) is not nn.Linear:
        return False
    setattr(classifier, classifier.base_model_prefix, trunk_of(model))
    classifier.score.weight = nn.Parameter(reward.head.weight.detach().to(model.dtype), False)
    classifier.save_pretrained(folder)
    return True


def _of_classifier(folder: Path) -> RewardModel:
    from transformers import AutoModelForSequenceClassification

    classifier = from_folder(AutoModelForSequenceClassification, str(folder), dtype=torch.float32)
    score = getattr(classifier, "score", None)
    if type(score) is not nn.Linear or score.bias is not None:
        raise ValueError(
            f"reward: {folder} is a {type(classifier).__name__}: its head is none on the last token's state"
        )
    model = RewardModel(trunk_of(classifier))
    with torch.no_grad():
        model.head.weight.copy_(score.weight)
    return model


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
