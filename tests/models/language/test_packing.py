"""Texts in one row are what they are alone, in every architecture that can keep them apart; the others are refused by name."""

from alignlab.models.language.trunk import hidden_states
from tiny_language import token_batch

import pytest
import torch
import transformers
from torch import nn

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
GPT2 = {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "pad_token_id": 0}
MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
EXACT = [
    ("Llama", {}),
    ("Mistral", {"sliding_window": 8}),
    ("Mixtral", {"sliding_window": 8, "num_local_experts": 2}),
    ("Starcoder2", {"sliding_window": 8}),
    ("Phi3", {"sliding_window": 8}),
    ("Qwen2", {"use_sliding_window": True, **MIXED}),
    ("Qwen3", {"use_sliding_window": True, **MIXED}),
    ("Gemma2", MIXED),
    ("Gemma3Text", MIXED),
    ("Cohere2", MIXED),
    ("GPT2", GPT2),
    ("GPTNeoX", {}),
    ("GPTNeo", {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 8}),
    ("OPT", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    ("Falcon", {"alibi": False, "new_decoder_architecture": False}),
]
REFUSED = [
    ("Bloom", {"n_layer": 2, "n_head": 4}, "BloomModel counts positions"),
    ("Falcon", {"alibi": True}, "FalconModel counts positions"),
    ("Mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2}, "MptModel counts positions"),
    ("Mamba", {"state_size": 4}, "MambaModel counts positions"),
    ("Lfm2", {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}, "Lfm2Model has layers of conv"),
    ("Jamba", {"num_experts": 1, "attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False, "mamba_d_state": 4}, "JambaModel has layers of"),
]  # fmt: skip


def make(name: str, changes: dict, attention: str | None = None) -> nn.Module:
    torch.manual_seed(0)
    settings = changes if name == "GPT2" else SIZES | changes
    if name == "Falcon":  # works it out by itself
        settings = {key: value for key, value in settings.items() if key not in ("head_dim", "num_key_value_heads")}
    config = getattr(transformers, f"{name}Config")(**settings)
    options = {} if attention is None else {"attn_implementation": attention}
    found = transformers.AutoModelForCausalLM.from_config(config, **options).eval()
    with torch.no_grad():
        for parameter in found.parameters():  # far from zero, so that a leak shows
            if parameter.dim() > 1:
                parameter.normal_(0, 0.2)
    return found


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("name", "changes"), EXACT, ids=lambda value: value if isinstance(value, str) else "")
def test_packed_texts_are_what_they_are_alone(name, changes, attention):
    try:
        model = make(name, changes, attention)
    except ValueError as error:
        if "does not support an attention implementation" not in str(error):
            raise
        pytest.skip(f"{name} has no {attention} attention")
    lengths = [30, 20, 12]
    alone = token_batch(lengths)
    ids = [row[:length] for row, length in zip(alone.ids, lengths, strict=True)]
    document = torch.cat([torch.full((length,), i + 1) for i, length in enumerate(lengths)])[None]
    position = torch.cat([torch.arange(length) for length in lengths])[None]
    packed = hidden_states(model, torch.cat(ids)[None], document=document, position=position)[0]
    wanted = torch.cat([hidden_states(model, row[None])[0] for row in ids])
    torch.testing.assert_close(packed, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "changes", "message"), REFUSED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_cannot_keep_texts_apart_is_refused_by_name(name, changes, message):
    model, ids = make(name, changes), torch.arange(3, 11)[None]
    document, position = torch.tensor([[1] * 5 + [2] * 3]), torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2]])
    with pytest.raises(ValueError, match=message) as caught:
        hidden_states(model, ids, document=document, position=position)
    assert str(caught.value).startswith("pack=true: ") and "pack=false" in str(caught.value)
    assert hidden_states(model, ids).shape == (1, 8, 32), "alone it runs"
