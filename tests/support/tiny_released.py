"""Random tiny CLIPs and a SigLIP in the formats that released ones come in, and pictures with captions for them.

All of it is a function of fixed numbers, so that `open_clip_record.py` can write down what open_clip makes of the same.
"""

import gzip
import json
from pathlib import Path

from alignlab.models.released.open_clip_layout import config_of, to_open_clip
from alignlab.models.released.sizes import ClipSizes, TowerSizes, untrained
from tiny_tokenizers import sentencepiece_model

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

# What tokenizers stumble over: curly quotes, entities, capitals, accents in two spellings, a picture, a long one.
CAPTIONS = [
    "A photo of a cat",
    "a dog’s “toy”,   on the\tmat!",
    "salt &amp; pepper &lt;3",
    "CAFÉ cafe\u0301 ｆｕｌｌ width",
    "two cats 🐱🐱 and 12 dogs, it's 7:30",
    "the cat sat on the mat and the dog sat on the cat and the bird sat on the dog and sang a song of cats and dogs",
]
SHAPES = [(50, 71), (123, 64), (40, 40), (33, 97), (32, 32), (201, 200)]  # height, width
SIZES = ClipSizes(
    vision=TowerSizes(64, 2, 1, 256, "quick_gelu", 1e-5),
    text=TowerSizes(64, 3, 1, 256, "quick_gelu", 1e-5),
    image_size=32,
    patch_size=8,
    context_length=24,
    vocab_size=512 + 8 + 2,
    embed_dim=24,
)
MERGES = ["a t</w>", "t h", "th e</w>", "c at</w>", "o n</w>", "a n", "an d</w>", "d o"]
PIECES = [
    "▁a",
    "▁cat",
    "▁dog",
    "▁mat",
    "▁the",
    "▁on",
    "▁and",
    "▁sat",
    "▁photo",
    "▁of",
    *"▁abcdefghijklmnopqrstuvwxyz0123456789é",
]
RELEASED_CLIP = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}


def pictures(folder: Path) -> Path:
    """Noise on slopes, in files, and a list of them with the captions; all of it is held out, and trained on."""
    rng, rows = np.random.default_rng(0), []
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for number, ((height, width), caption) in enumerate(zip(SHAPES, CAPTIONS, strict=True)):
        slopes = np.linspace(0, 160, width)[None, :, None] + np.linspace(0, 60, height)[:, None, None]
        pixels = (slopes + rng.integers(0, 36, (height, width, 3))).astype(np.uint8)
        Image.fromarray(np.roll(pixels, number, -1)).save(folder / "pictures" / f"{number}.png")
        rows += [
            json.dumps({"image": f"pictures/{number}.png", "caption": caption, "split": split}, ensure_ascii=False)
            for split in ("train", "val")
        ]
    (folder / "captions.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder / "captions.jsonl"


def numbers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Other values for tensors, the same everywhere: far from zeros and ones, and small enough not to overflow."""
    made = {}
    for number, name in enumerate(sorted(state)):
        shape = tuple(state[name].shape)
        noise = torch.from_numpy(np.random.default_rng(number).standard_normal(shape)).float().reshape(shape)
        if name.endswith("logit_scale"):
            made[name] = torch.full(shape, 2.5)
        elif name.endswith("logit_bias"):
            made[name] = torch.full(shape, -3.0)
        else:
            one = 1.0 if len(shape) == 1 and name.endswith("weight") else 0.0
            made[name] = one + noise * (0.1 if len(shape) < 2 else 0.15)
    return made


def open_clip_state() -> dict[str, Tensor]:
    """Weights of the tiny CLIP under open_clip's names."""
    return numbers(to_open_clip(untrained(SIZES, vocab_size=SIZES.vocab_size).state_dict(), SIZES))


def merges_file(folder: Path) -> Path:
    """A byte-pair encoding as OpenAI's package brings it, of few merges."""
    file = folder / "bpe_simple_vocab_16e6.txt.gz"
    file.write_bytes(gzip.compress(("#version\n" + "\n".join(MERGES)).encode()))
    return file


def open_clip_folder(folder: Path) -> Path:
    """open_clip's format, with safetensors."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    preprocess = {
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.3, 0.25],
        "interpolation": "bilinear",
        "resize_mode": "shortest",
    }
    content = {"model_cfg": config_of(SIZES), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    save_file(open_clip_state(), folder / "open_clip_model.safetensors")
    merges_file(folder)
    return folder


def openai_file(folder: Path, *, jit: bool) -> Path:
    """A file of OpenAI's: what layers multiply with in fp16, three numbers besides, and perhaps a program around
    them."""
    folder.mkdir(parents=True)
    halved = ("in_proj_", "out_proj", "c_fc", "c_proj", "conv1", "visual.proj", "text_projection")
    state = {n: v.half() if any(part in n for part in halved) else v for n, v in open_clip_state().items()}
    state |= {"input_resolution": torch.tensor(32), "context_length": torch.tensor(24), "vocab_size": torch.tensor(522)}
    merges_file(folder)
    if not jit:
        torch.save(state, folder / "ViT-tiny.pt")
        return folder / "ViT-tiny.pt"
    root = _Part()
    for name, value in state.items():
        *places, last = name.split(".")
        part = root
        for place in places:
            if place not in dict(part.named_children()):
                part.add_module(place, _Part())
            part = dict(part.named_children())[place]
        if value.is_floating_point():
            part.register_parameter(last, nn.Parameter(value))
        else:
            part.register_buffer(last, value)
    torch.jit.trace(root, torch.zeros(1)).save(str(folder / "ViT-tiny.pt"))
    return folder / "ViT-tiny.pt"


class _Part(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + sum(p.float().sum() for p in self.parameters())


def clip_folder(folder: Path) -> Path:
    """transformers' `CLIPModel`, with processor and tokenizer."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    letters = CLIPTokenizer(*_vocabulary(), model_max_length=24)
    tower = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "num_attention_heads": 4}
    text = {"hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 3, "max_position_embeddings": 24}
    ids = {"bos_token_id": letters.bos_token_id, "eos_token_id": letters.eos_token_id, "vocab_size": len(letters)}
    vision = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "image_size": 32, "patch_size": 8}
    config = CLIPConfig(text_config={**text, **ids, **tower}, vision_config={**vision, **tower}, projection_dim=24)
    model = CLIPModel(config)
    model.load_state_dict(numbers(model.state_dict()) | _positions(model))
    model.save_pretrained(folder)
    letters.save_pretrained(folder)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPImageProcessor(**size, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25]).save_pretrained(folder)
    return folder


def siglip_folder(folder: Path) -> Path:
    """transformers' `SiglipModel`, with processor and SentencePiece model."""
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    folder.mkdir(parents=True)
    special = [("<pad>", 0.0, 3), ("</s>", 0.0, 3), ("<unk>", 0.0, 2)]
    pieces = [(text, -1.0 - 0.5 * n, 1) for n, text in enumerate(PIECES)]
    sentencepiece_model(folder / "spiece.model", [*special, *pieces], algorithm=1)
    said = {"tokenizer_class": "SiglipTokenizer", "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**said, "model_max_length": 16}))
    tower = {"hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
    text = {**tower, "vocab_size": len(special) + len(pieces), "max_position_embeddings": 16, "projection_size": 32}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config={**tower, "image_size": 32, "patch_size": 8}))
    model.load_state_dict(numbers(model.state_dict()) | _positions(model))
    model.save_pretrained(folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}, resample=2).save_pretrained(folder)
    return folder


def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    from alignlab.models.released.words import vocabulary_of_merges

    return vocabulary_of_merges(MERGES)


def _positions(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if name.endswith("position_ids")}
