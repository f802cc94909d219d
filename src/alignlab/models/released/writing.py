"""A trained `Clip` as others read it: transformers' `CLIPModel` or `SiglipModel` with processor, open_clip's folder."""

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from alignlab.files.checksums import FILE, write_sums
from alignlab.models.attention import PreNormBlock
from alignlab.models.clip import Clip
from alignlab.models.released.open_clip_layout import config_of, to_open_clip
from alignlab.models.released.sizes import ClipSizes, TowerSizes
from alignlab.models.released.source import OPEN_CLIP_CONFIG, Released
from alignlab.models.released.transformers_layout import ACTIVATIONS, to_transformers
from alignlab.models.released.words import around
from alignlab.models.vision import ConvStem
from alignlab.types.recipes import PictureRecipe, TextRecipe

_PIL = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "spiece.model",
)
_ENDS = (".json", ".txt", ".model", ".gz", ".jinja")  # of files that aren't weights


def sizes_of_net(net: Clip) -> ClipSizes:
    """The sizes of a net. Raises ValueError, one line, where neither CLIP nor SigLIP as released is built so."""
    trunk, text = net.vision.trunk, net.text
    siglip = isinstance(net.image_projection, torch.nn.Identity)
    blocks = getattr(trunk, "blocks", ())
    wrong = {
        "its vision tower is no plain ViT": not all(isinstance(block, PreNormBlock) for block in blocks) or not blocks,
        "its vision tower has a convolutional stem": isinstance(getattr(trunk, "patch_embed", None), ConvStem),
        "its vision tower has no norm before the first block": not siglip
        and isinstance(getattr(trunk, "norm_pre", None), torch.nn.Identity),
        "its text tower sees both ways": text.causal == siglip,
        f"its text tower pools by {text.pool}": text.pool != "last",
        "its projections have biases": not siglip and net.text_projection.bias is not None,
        "it has a bias of logits": not siglip and net.logit_bias is not None,
    }
    if said := [what for what, so in wrong.items() if so]:
        raise ValueError(f"neither CLIP nor SigLIP as released is built as this net: {', '.join(said)}")
    patch = trunk.patch_embed.patch_size[0]
    return ClipSizes(
        vision=_tower(net.vision.width, blocks, trunk.norm.eps),
        text=_tower(text.width, text.blocks, text.norm.eps),
        image_size=net.grid[0] * patch,
        patch_size=patch,
        context_length=text.context_length,
        vocab_size=text.token_embedding.num_embeddings,
        embed_dim=net.text_projection.out_features,
        siglip=siglip,
    )


def _tower(width: int, blocks: Any, eps: float) -> TowerSizes:
    act = blocks[0].mlp.act
    tanh = getattr(act, "approximate", "none") == "tanh"
    name = "quick_gelu" if type(act).__name__ == "QuickGELU" else "gelu_tanh" if tanh else "gelu"
    return TowerSizes(width, len(blocks), blocks[0].attn.num_heads, blocks[0].mlp.fc1.out_features, name, eps)


def write_transformers(
    net: Clip,
    folder: Path,
    tokenizer: PreTrainedTokenizerFast,
    text: TextRecipe,
    picture: PictureRecipe,
    source: Path | None = None,
) -> int:
    """Writes config.json, model.safetensors, preprocessor_config.json and the tokenizer; gives the number of tensors.

    Args:
        text, picture: what the net's inputs are made by.
        source: a folder whose tokenizer is this one, in its own form.

    Raises:
        ValueError: transformers has no such net, or reads the end of a text from a token that there is none of.
    """
    sizes = sizes_of_net(net)
    if not text.end:
        raise ValueError(
            "captions end without an end token, from which transformers' CLIP takes a text's vector: train with "
            "append_sep=true, or with a released tokenizer"
        )
    model = _empty_model(sizes, text)
    state = to_transformers(plain_state(net), model.state_dict())
    model.load_state_dict(state)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    _write_processor(folder, sizes, picture)
    _write_tokenizer(folder, tokenizer, text, source)
    write_sums(folder)
    return len(state)


def _empty_model(sizes: ClipSizes, text: TextRecipe) -> Any:
    """transformers' model of these sizes, with random weights."""
    from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

    activation = {name: theirs for theirs, name in reversed(ACTIVATIONS.items())}
    parts = {
        part: {
            "hidden_size": tower.width,
            "intermediate_size": tower.inner,
            "num_hidden_layers": tower.depth,
            "num_attention_heads": tower.heads,
            "hidden_act": activation[tower.activation],
            "layer_norm_eps": tower.norm_eps,
        }
        for part, tower in (("text_config", sizes.text), ("vision_config", sizes.vision))
    }
    parts["text_config"] |= {
        "vocab_size": sizes.vocab_size,
        "max_position_embeddings": sizes.context_length,
        "bos_token_id": (*text.begin, *text.end)[0],
        "eos_token_id": text.end[-1],
        "pad_token_id": text.pad_id,
    } | ({"projection_size": sizes.embed_dim} if sizes.siglip else {})
    parts["vision_config"] |= {"image_size": sizes.image_size, "patch_size": sizes.patch_size}
    if sizes.siglip:
        return SiglipModel(SiglipConfig(**parts))
    return CLIPModel(CLIPConfig(**parts, projection_dim=sizes.embed_dim))


def write_open_clip(
    net: Clip, folder: Path, tokenizer: PreTrainedTokenizerFast, text: TextRecipe, picture: PictureRecipe
) -> int:
    """Writes open_clip_config.json, open_clip_model.safetensors and the tokenizer; gives the number of tensors.

    Raises ValueError for what open_clip's CLIP can't be.
    """
    from safetensors.torch import save_file

    sizes = sizes_of_net(net)
    config = config_of(sizes)
    if len(text.begin) != 1 or len(text.end) != 1 or tokenizer.convert_ids_to_tokens(text.end[0]) != "<|endoftext|>":
        raise ValueError(
            "open_clip's CLIP takes a text's vector from the highest id, CLIP's own end token; this net has another "
            "tokenizer: write it for transformers"
        )
    state = to_open_clip(plain_state(net), sizes)
    folder.mkdir(parents=True, exist_ok=True)
    write_open_clip_config(folder, config, picture)
    save_file(state, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)
    write_sums(folder)
    return len(state)


def write_open_clip_config(folder: Path, config: Mapping[str, Any], picture: PictureRecipe) -> None:
    """Sizes and what is done with pictures, as open_clip reads them."""
    said = {
        "mean": list(picture.mean),
        "std": list(picture.std),
        "interpolation": picture.interpolation,
        "resize_mode": "shortest" if picture.resize == "crop" else "squash",
    }
    content = json.dumps({"model_cfg": config, "preprocess_cfg": said}, indent=2)
    (folder / OPEN_CLIP_CONFIG).write_text(content + "\n", encoding="utf-8")


def copy_source(released: Released, folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """What of a released net isn't weights, so that a run that began from it needs it no more."""
    folder.mkdir(parents=True, exist_ok=True)
    place = released.place if released.place.is_dir() else released.place.parent
    if released.place.is_dir() or (place / OPEN_CLIP_CONFIG).is_file():
        for file in place.iterdir():
            if file.is_file() and file.name.endswith(_ENDS) and not file.name.endswith(".index.json"):
                if file.name != FILE:
                    shutil.copyfile(file, folder / file.name)
    if released.layout == "open_clip":
        if not (folder / OPEN_CLIP_CONFIG).exists():
            write_open_clip_config(folder, config_of(released.sizes), released.picture)
        if not any((folder / name).exists() for name in ("tokenizer.json", "merges.txt")):
            tokenizer.save_pretrained(folder)


def plain_state(net: Clip) -> dict[str, Tensor]:
    """A net's weights in fp32, on the host."""
    return {name: value.detach().to("cpu", torch.float32) for name, value in net.state_dict().items()}


def _write_processor(folder: Path, sizes: ClipSizes, picture: PictureRecipe) -> None:
    square = {"height": sizes.image_size, "width": sizes.image_size}
    cropped = picture.resize == "crop"
    content = {
        "image_processor_type": "SiglipImageProcessor" if sizes.siglip else "CLIPImageProcessor",
        "processor_class": "SiglipProcessor" if sizes.siglip else "CLIPProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": sizes.image_size} if cropped else square,
        "resample": _PIL[picture.interpolation],
        "do_center_crop": cropped,
        "crop_size": square,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(picture.mean),
        "image_std": list(picture.std),
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerFast, text: TextRecipe, source: Path | None) -> None:
    """The files that it came from, where it did; else the tokenizer, made to put around a text what the net has
    learned with.
    """
    known = [source / name for name in _TOKENIZER if source is not None and (source / name).is_file()]
    for file in known:
        shutil.copyfile(file, folder / file.name)
    if known:
        return
    tokenizer = copy.deepcopy(tokenizer)
    if around(tokenizer) != (text.begin, text.end):
        names = {name: tokenizer.convert_ids_to_tokens(name) for name in (*text.begin, *text.end)}
        row = [*(names[i] for i in text.begin), "$A", *(names[i] for i in text.end)]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=row, special_tokens=[(token, number) for number, token in names.items()]
        )
    tokenizer.model_max_length = text.context_length
    tokenizer.save_pretrained(folder)
