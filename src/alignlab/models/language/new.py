"""New, small language models and encoders, in transformers' form.

Legend: B rows, T tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alignlab.models.language.trunk import checkpoint_activations, trunk_of
from alignlab.types.language import LanguageVocabulary

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


def llama(
    *,
    width: int = 256,
    depth: int = 4,
    heads: int = 4,
    mlp_width: int | None = None,
    context_length: int = 256,
    dropout: float = 0.0,
    tie_embeddings: bool = True,
    gradient_checkpointing: bool = False,
    vocabulary: LanguageVocabulary,
) -> PreTrainedModel:
    """A new Llama-like model (arXiv:2302.13971): RMSNorm, rotary positions, SwiGLU of `mlp_width` (None: 8/3 width,
    rounded up to 32).
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    if width % heads or (width // heads) % 2:
        raise ValueError(f"width={width} must be an even multiple of heads={heads}")
    config = LlamaConfig(
        vocab_size=vocabulary.size,
        hidden_size=width,
        intermediate_size=mlp_width or -(-width * 8 // 96) * 32,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context_length,
        tie_word_embeddings=tie_embeddings,
        pad_token_id=vocabulary.pad_id,
        bos_token_id=vocabulary.bos_id,
        eos_token_id=vocabulary.eos_id,
    )
    model = LlamaForCausalLM(config)
    if dropout:
        add_dropout(model, dropout)
    if gradient_checkpointing:
        checkpoint_activations(model)
    return model


def encoder(
    *,
    width: int = 128,
    depth: int = 1,
    heads: int = 4,
    mlp_width: int = 256,
    context_length: int = 256,
    dropout: float = 0.4,
    attention_dropout: float = 0.1,
    token_dropout: float = 0.0,
    vocabulary: LanguageVocabulary,
) -> PreTrainedModel:
    """A new bidirectional encoder in BERT's form (arXiv:1810.04805).

    `token_dropout`: part of the tokens whose word vector is blanked in training.
    """
    from transformers import BertConfig, BertModel

    if width % heads:
        raise ValueError(f"width={width} must be a multiple of heads={heads}")
    config = BertConfig(
        vocab_size=vocabulary.size,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=mlp_width,
        max_position_embeddings=context_length,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=attention_dropout,
        pad_token_id=vocabulary.pad_id,
    )
    model = BertModel(config, add_pooling_layer=False)

    def blank(module: nn.Module, _: object, vectors: Tensor) -> Tensor:
        # (B, T, 1): a token's whole vector or nothing of it, unscaled, as if the word were unknown
        return vectors * (
            vectors.new_empty(*vectors.shape[:2], 1).bernoulli_(1 - token_dropout) if module.training else 1
        )

    if token_dropout:
        model.get_input_embeddings().register_forward_hook(blank)
    return model


def add_dropout(model: nn.Module, probability: float) -> None:
    """Dropout behind the embeddings and each attention and MLP, in training mode, by hooks: weights and exports stay
    as they are.
    """
    from torch import nn

    def drop(module: nn.Module, _: object, output: object) -> object:
        if not module.training:
            return output
        if isinstance(output, tuple):
            return (nn.functional.dropout(output[0], probability), *output[1:])
        return nn.functional.dropout(output, probability)

    parts = [model.get_input_embeddings()]
    parts += [m for name, m in trunk_of(model).named_modules() if name.endswith((".self_attn", ".mlp"))]
    for part in parts:
        part.register_forward_hook(drop)
