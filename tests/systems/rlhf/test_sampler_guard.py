"""The rollout's model is the policy: an adapter that our decoder can't use goes to transformers, and a difference is noticed at its dtype's scale."""

from alignlab.inference.backends.compiled import CompiledBackend
from alignlab.inference.backends.transformers import TransformersBackend
from alignlab.methods.rlhf.sampler import check_sampler, default_backend
from alignlab.models.language.lora import add_lora
from tiny_language import NET, WORDS

import pytest
import torch


def test_an_adapter_on_the_embedding_is_rolled_out_by_transformers() -> None:
    assert isinstance(default_backend(add_lora(NET(vocabulary=WORDS), rank=2)), CompiledBackend)
    adapted = add_lora(NET(vocabulary=WORDS), rank=2, targets=["q_proj", "embed_tokens"])
    assert isinstance(default_backend(adapted), TransformersBackend)


@pytest.mark.parametrize(
    ("dtype", "error", "passes"),
    [("float32", 1e-4, True), ("float32", 0.01, False), ("bfloat16", 0.01, True), ("bfloat16", 0.3, False)],
)
def test_the_guard_knows_the_dtype(dtype: str, error: float, passes: bool) -> None:
    model = NET(vocabulary=WORDS).to(getattr(torch, dtype))
    if passes:
        check_sampler(error, CompiledBackend(), model)
    else:
        with pytest.raises(RuntimeError, match="samples from another model than the policy"):
            check_sampler(error, CompiledBackend(), model)
