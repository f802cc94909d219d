"""How many tokens a model can look at: the one place that finds it, for training, rollouts and inference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alignlab.models.language.paths import resolve_model

if TYPE_CHECKING:
    from torch import nn

_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length")
_AFTER_PADDING = ("roberta", "camembert", "mpnet", "esm", "longformer", "luke", "data2vec-text", "xmod", "ibert")


def context_length(config: Any) -> int | None:
    """Longest text in tokens by a model's config; None where positions have no end (ALiBi, recurrent states)."""
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    kind = getattr(config, "model_type", "")
    if kind == "bloom" or getattr(config, "alibi", False):  # theirs is the length of the training, not a limit
        return None
    length = next((int(value) for name in _NAMES if isinstance(value := getattr(config, name, None), int)), None)
    if length is not None and any(kind.startswith(("xlm-" + name, name)) for name in _AFTER_PADDING):
        return (
            length - (getattr(config, "pad_token_id", None) or 0) - 1
        )  # positions are counted from behind the padding's
    return length if length is None or length > 0 else None


def path_context(path: str) -> int | None:
    """The same for the model behind a path (`paths.resolve_model`)."""
    from transformers import AutoConfig

    return context_length(AutoConfig.from_pretrained(resolve_model(path)[0], trust_remote_code=False))


def net_context(net: nn.Module) -> tuple[int | None, bool]:
    """Context of the language model in a net, and whether it ends there: False where positions are rotations, which
    only have not been trained beyond.
    """
    config = next(
        (config_of for module in net.modules() if (config_of := getattr(module, "config", None)) is not None), None
    )
    if config is None or isinstance(config, dict):
        return None, False
    return context_length(config), not any(name.endswith("inv_freq") for name, _ in net.named_buffers())
