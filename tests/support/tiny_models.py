"""Random models of four architectures at tiny size, with odd head counts, in Hugging Face's format."""

from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel

VOCABULARY, CONTEXT = 97, 64
ARCHITECTURES = ("llama", "bloom", "gpt2", "gpt_neox")
PROMPTS = [[5, 17, 80, 9, 33], [41], [7, 7, 90, 12, 60, 3, 28, 51, 66], [22, 13, 4]]
ATTENTION = {"llama": "q_proj v_proj down_proj", "bloom": "query_key_value dense", "gpt2": "c_attn c_proj"}
ATTENTION["gpt_neox"] = "query_key_value dense_4h_to_h"


def tiny_model(kind: str, even: bool = False) -> PreTrainedModel:
    """A model whose greedy continuations vary: weights far larger than at the usual initialisation, head apart from the embedding."""
    heads = 4 if even else 3
    sizes = {"vocab_size": VOCABULARY, "tie_word_embeddings": kind == "gpt2"}
    llama = {"hidden_size": 60, "intermediate_size": 50, "num_hidden_layers": 2, "max_position_embeddings": CONTEXT}
    config = {
        "llama": lambda: transformers.LlamaConfig(
            **sizes, **llama, num_attention_heads=4 if even else 6, num_key_value_heads=2 if even else 3, head_dim=10
        ),
        "bloom": lambda: transformers.BloomConfig(**sizes, hidden_size=36, n_layer=2, n_head=heads),
        "gpt2": lambda: transformers.GPT2Config(**sizes, n_embd=36, n_layer=2, n_head=heads, n_positions=CONTEXT),
        "gpt_neox": lambda: transformers.GPTNeoXConfig(**sizes, **llama, num_attention_heads=heads, rotary_pct=0.4),
    }[kind]()
    config.bos_token_id = config.eos_token_id = None
    config.pad_token_id = 0
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                parameter.copy_(1 + 0.2 * noise if name.endswith("weight") else 0.05 * noise)
            else:  # a tied embedding that is larger repeats its own token
                parameter.copy_((0.06 if "wte" in name else 0.4) * noise)
    model.generation_config.eos_token_id = model.generation_config.bos_token_id = None
    return model


def save_model(kind: str, folder: Path, even: bool = False) -> Path:
    """The model's folder."""
    tiny_model(kind, even).save_pretrained(folder)
    return folder


def save_adapter(kind: str, folder: Path) -> Path:
    """Folder of a LoRA adapter for it, with weights that matter."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=3, lora_alpha=6, target_modules=ATTENTION[kind].split(), fan_in_fan_out=kind == "gpt2")
    model = get_peft_model(tiny_model(kind), config)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    return folder


def adapted_model(kind: str, adapter: Path) -> PreTrainedModel:
    """The model with the adapter on top, by PEFT."""
    from peft import PeftModel

    return PeftModel.from_pretrained(tiny_model(kind), adapter).eval()
