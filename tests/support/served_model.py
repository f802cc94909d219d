"""A language model of thousands of parameters with a tokenizer of bytes, for tests of inference."""

from pathlib import Path

from alignlab.inference.backends.scripted import byte_tokenizer

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}</{{ message.role }}>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def chat_tokenizer() -> PreTrainedTokenizerBase:
    """The byte tokenizer with a chat template that can be read at a glance."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def write_language_model(folder: Path, *, chat: bool = False, positions: int = 512) -> Path:
    """A random Llama of two layers, always the same, and its tokenizer, in Hugging Face's format."""
    tokenizer = chat_tokenizer() if chat else byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.4,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
