"""How many tokens the model behind a path can look at."""

from alignlab.models.language import context
from alignlab.models.language.loading import resolve_model


def context_length(path: str) -> int | None:
    """Largest number of tokens by a model's config; None where it sets no limit (BLOOM's ALiBi)."""
    from transformers import AutoConfig

    return context.context_length(AutoConfig.from_pretrained(resolve_model(path)[0]))
