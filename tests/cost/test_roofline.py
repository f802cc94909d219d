"""Bytes of the cache against a cache that transformers fills, and a bandwidth of this century."""

from alignlab.cost.roofline import cache_bytes, read_bandwidth

import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig, GPT2Config, GPTNeoXConfig, LlamaConfig

TINY = {"vocab_size": 11, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 6}


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**TINY, intermediate_size=20, num_key_value_heads=2),
        LlamaConfig(**TINY, intermediate_size=20, num_key_value_heads=3, head_dim=10),
        GPTNeoXConfig(**TINY, intermediate_size=20),
        GPT2Config(vocab_size=11, n_embd=24, n_layer=3, n_head=6),
        BloomConfig(vocab_size=11, hidden_size=24, n_layer=3, n_head=6),
    ],
    ids=lambda config: config.model_type,
)
def test_cache_bytes(config) -> None:
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        cache = model(torch.zeros(2, 7, dtype=torch.int64), use_cache=True).past_key_values
    held = sum(x.nbytes for layer in cache.layers for x in (layer.keys, layer.values))
    assert cache_bytes(config, batch=2, tokens=7, element=4) == held


def test_bandwidth() -> None:
    assert 1e8 < read_bandwidth(2**24, repeats=2) < 1e13
