"""A language model of thousands of parameters with a tokenizer of bytes, for tests of inference."""

from pathlib import Path

from alignlab.inference.backends.scripted import byte_tokenizer
from alignlab.models.language.reward import RewardModel

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


def write_reward_model(folder: Path) -> Path:
    """The export of a reward model on the language model's trunk, with mean 0.5 and deviation 2."""
    write_language_model(folder)
    model = RewardModel(LlamaForCausalLM.from_pretrained(folder))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        model.head.weight.normal_()
        model.mean.fill_(0.5)
        model.std.fill_(2.0)
    model.save_head(folder)
    return folder


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
