"""How many tokens a model can look at."""

from alignlab.models.language import resolve_model

_NAMES = ("max_position_embeddings", "n_positions", "seq_length", "max_sequence_length")


def context_length(path: str) -> int | None:
    """Largest number of tokens by a model's config; None where it sets no limit (BLOOM's ALiBi)."""
    from transformers import AutoConfig

    base, _ = resolve_model(path)
    config = AutoConfig.from_pretrained(base).get_text_config()
    if config.model_type == "bloom":  # its seq_length is that of the training, not a limit
        return None
    return next((int(value) for name in _NAMES if isinstance(value := getattr(config, name, None), int)), None)
