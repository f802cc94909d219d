"""Vision transformer and BERT of the ALBEF oracle, written plainly, with the parameter names of the released checkpoints.

The ViT is pre-norm (eps 1e-6) and normalises all tokens at the end; BERT is post-norm (eps 1e-12) and its layers from `fusion_layer` on
attend to the picture between self-attention and feed-forward. Attention is an explicit softmax with an additive -10000 mask.

Legend: B pairs, T tokens, S image tokens, W width, V vocabulary. Masks: 1 = keep.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Sizes(NamedTuple):
    """The published model's sizes; 256 px, ViT-B/16, BERT-base with fusion from layer 6."""

    image_size: int = 256
    patch_size: int = 16
    vision_width: int = 768
    vision_layers: int = 12
    vision_heads: int = 12
    vocab_size: int = 30522
    text_width: int = 768
    text_layers: int = 12
    fusion_layer: int = 6
    text_heads: int = 12
    max_positions: int = 512
    embed_dim: int = 256
    queue_size: int = 65536
    momentum: float = 0.995
    dropout: float = 0.1
    mlm_probability: float = 0.15
    pad_id: int = 0
    cls_id: int = 101
    mask_id: int = 103


# --- vision -----------------------------------------------------------------------------------------------------------------------


class VisionAttention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, s, w = x.shape
        q, k, v = self.qkv(x).reshape(b, s, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        weights = ((q @ k.transpose(-2, -1)) * (w // self.heads) ** -0.5).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, s, w))


class VisionMlp(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class VisionBlock(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = VisionAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = VisionMlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, width: int, patch: int):
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    def __init__(self, z: Sizes):
        super().__init__()
        width = z.vision_width
        self.patch_embed = PatchEmbed(width, z.patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, (z.image_size // z.patch_size) ** 2 + 1, width))
        self.blocks = nn.ModuleList(VisionBlock(width, z.vision_heads) for _ in range(z.vision_layers))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patch_embed(image)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


# --- text and fusion --------------------------------------------------------------------------------------------------------------


class BertProjections(nn.Module):
    """Attention of `x` to `context` with an additive mask; dropout falls on the probabilities."""

    def __init__(self, width: int, context_width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context_width, width)
        self.value = nn.Linear(context_width, width)
        self.dropout = nn.Dropout(dropout)

    def split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(self, x: Tensor, context: Tensor, additive: Tensor) -> Tensor:
        q, k, v = self.split(self.query(x)), self.split(self.key(context)), self.split(self.value(context))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + additive
        return (self.dropout(scores.softmax(dim=-1)) @ v).transpose(1, 2).reshape(x.shape)


class BertOutput(nn.Module):
    """Dense, dropout, residual, norm: the end of every post-norm sub-layer."""

    def __init__(self, inner: int, width: int, dropout: float):
        super().__init__()
        self.dense = nn.Linear(inner, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


class BertAttention(nn.Module):
    def __init__(self, width: int, context_width: int, heads: int, dropout: float):
        super().__init__()
        self.self = BertProjections(width, context_width, heads, dropout)
        self.output = BertOutput(width, width, dropout)

    def forward(self, x: Tensor, context: Tensor, additive: Tensor) -> Tensor:
        return self.output(self.self(x, context, additive), x)


class BertIntermediate(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.dense = nn.Linear(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.dense(x))


class BertLayer(nn.Module):
    def __init__(self, z: Sizes, fuses: bool):
        super().__init__()
        w = z.text_width
        self.attention = BertAttention(w, w, z.text_heads, z.dropout)
        if fuses:
            self.crossattention = BertAttention(w, z.vision_width, z.text_heads, z.dropout)
        self.intermediate = BertIntermediate(w)
        self.output = BertOutput(4 * w, w, z.dropout)

    def forward(self, x: Tensor, text_additive: Tensor, image: Tensor | None, image_additive: Tensor | None) -> Tensor:
        x = self.attention(x, x, text_additive)
        if hasattr(self, "crossattention"):
            x = self.crossattention(x, image, image_additive)
        return self.output(self.intermediate(x), x)


class BertEmbeddings(nn.Module):
    def __init__(self, z: Sizes):
        super().__init__()
        self.word_embeddings = nn.Embedding(z.vocab_size, z.text_width)
        self.position_embeddings = nn.Embedding(z.max_positions, z.text_width)
        self.token_type_embeddings = nn.Embedding(2, z.text_width)
        self.LayerNorm = nn.LayerNorm(z.text_width, eps=1e-12)
        self.dropout = nn.Dropout(z.dropout)
        self.register_buffer("position_ids", torch.arange(z.max_positions)[None])

    def forward(self, ids: Tensor) -> Tensor:
        x = self.word_embeddings(ids) + self.token_type_embeddings(torch.zeros_like(ids))
        x = x + self.position_embeddings(self.position_ids[:, : ids.shape[1]])
        return self.dropout(self.LayerNorm(x))


class BertEncoder(nn.Module):
    def __init__(self, z: Sizes):
        super().__init__()
        self.layer = nn.ModuleList(BertLayer(z, fuses=n >= z.fusion_layer) for n in range(z.text_layers))


class Bert(nn.Module):
    def __init__(self, z: Sizes):
        super().__init__()
        self.fusion_layer = z.fusion_layer
        self.embeddings = BertEmbeddings(z)
        self.encoder = BertEncoder(z)

    @staticmethod
    def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
        return (1 - mask[:, None, None, :].to(dtype)) * -10000.0

    def text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Layers below the fusion layer: (B, T, W)."""
        x = self.embeddings(ids)
        for layer in self.encoder.layer[: self.fusion_layer]:
            x = layer(x, self.additive(mask, x.dtype), None, None)
        return x

    def fusion(self, x: Tensor, mask: Tensor, image: Tensor) -> Tensor:
        """The layers that look at the picture, started from text states: (B, T, W)."""
        image_additive = self.additive(torch.ones(image.shape[:2], device=image.device), x.dtype)
        for layer in self.encoder.layer[self.fusion_layer :]:
            x = layer(x, self.additive(mask, x.dtype), image, image_additive)
        return x


class MlmTransform(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor) -> Tensor:
        return self.LayerNorm(F.gelu(self.dense(x)))


class MlmPredictions(nn.Module):
    """Vocabulary logits with the word embeddings as weight; the bias appears twice in a state dict, as `bias` and `decoder.bias`."""

    def __init__(self, z: Sizes, word_embeddings: nn.Embedding):
        super().__init__()
        self.transform = MlmTransform(z.text_width)
        self.bias = nn.Parameter(torch.zeros(z.vocab_size))
        self.decoder = nn.Linear(z.text_width, z.vocab_size)
        self.decoder.weight = word_embeddings.weight
        self.decoder.bias = self.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.transform(x))


class MlmHead(nn.Module):
    def __init__(self, z: Sizes, word_embeddings: nn.Embedding):
        super().__init__()
        self.predictions = MlmPredictions(z, word_embeddings)


class TextModel(nn.Module):
    def __init__(self, z: Sizes):
        super().__init__()
        self.bert = Bert(z)
        self.cls = MlmHead(z, self.bert.embeddings.word_embeddings)

    def vocabulary_logits(self, ids: Tensor, mask: Tensor, image: Tensor) -> Tensor:
        return self.cls.predictions(
            self.bert.fusion(self.bert.text(ids, mask), mask, image)
        )  # (B, T, V), every position
