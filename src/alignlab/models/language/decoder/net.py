"""The decoder: embeddings, layers of attention and feed-forward, a head.

Legend: B rows, T tokens, W width, H heads, K key heads, D head width, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from alignlab.models.language.decoder.feed_forward import FeedForward, Mixture
from alignlab.models.language.decoder.positions import (
    BUCKETS,
    Seen,
    alibi_slopes,
    growth,
    rotate,
    rotations,
    visible,
    with_alibi,
    with_distances,
)
from alignlab.models.language.decoder.settings import TURNED, DecoderSettings
from alignlab.types.language import LanguageVocabulary


class Decoded(NamedTuple):
    """What a decoder makes of a batch."""

    hidden: Tensor  # (B, T, W) after the last norm
    balance: Tensor | None  # () mean of the layers' imbalance of experts; None without a mixture


class Layer(nn.Module):
    """Attention and feed-forward, each with its norms and its residual."""

    entry_points = ("forward",)  # methods that use parameters, for `alignlab.strategies.sharding`

    def __init__(self, settings: DecoderSettings) -> None:
        super().__init__()
        s = self.settings = settings
        self.qkv = nn.Linear(s.width, (s.heads + 2 * s.kv_heads) * s.head_width, bias=s.bias)
        self.out = nn.Linear(s.width, s.width, bias=s.bias)
        self.mlp = Mixture(s) if s.experts else FeedForward(s)
        self.norm1, self.norm2 = new_norm(s), new_norm(s)
        if s.norm_place == "sandwich":
            self.norm_out1, self.norm_out2 = new_norm(s), new_norm(s)

    def forward(self, x: Tensor, seen: Seen) -> tuple[Tensor, Tensor | None]:
        """(B, T, W) -> the same, and the imbalance of its experts."""
        place = self.settings.norm_place
        if place in ("post", "deep"):  # arXiv:1706.03762; arXiv:2203.00555
            scale = self.settings.residual_scale
            x = self.norm1(x * scale + self._dropped(self._attend(x, seen)))
            y, balance = self.mlp(x, seen.real)
            return self.norm2(x * scale + self._dropped(y)), balance
        y = self._attend(self.norm1(x), seen)
        x = x + self._dropped(self.norm_out1(y) if place == "sandwich" else y)  # sandwich: arXiv:2105.13290, sec. 2.4
        y, balance = self.mlp(self.norm2(x), seen.real)
        return x + self._dropped(self.norm_out2(y) if place == "sandwich" else y), balance

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.settings.dropout, self.training) if self.settings.dropout else x

    def _attend(self, x: Tensor, seen: Seen) -> Tensor:
        s, (rows, length, _) = self.settings, x.shape
        qkv = self.qkv(x).view(rows, length, -1, s.head_width)
        turned, value = qkv.split([s.heads + s.kv_heads, s.kv_heads], 2)
        query, key = rotate(turned, seen).split([s.heads, s.kv_heads], 2)
        if seen.growth is not None:
            query, key = query * seen.growth, key / seen.growth
        out = F.scaled_dot_product_attention(
            *(part.transpose(1, 2) for part in (query, key, value)),
            attn_mask=seen.mask,
            is_causal=seen.mask is None,
            enable_gqa=s.kv_heads != s.heads,
            scale=None if s.base_width is None else s.query_scale * s.head_width**-0.5,
        )
        return self.out(out.transpose(1, 2).reshape(rows, length, -1))


class Decoder(nn.Module):
    """A decoder-only language model as its settings say; `building.decoder` makes one.

    `config` and `get_output_embeddings` are those that `models.language.trunk` asks a model for.
    """

    def __init__(self, settings: DecoderSettings) -> None:
        super().__init__()
        s = self.config = settings
        self.gradient_checkpointing = False
        self.words: LanguageVocabulary | None = None  # whose ids an export names
        self.embedding = nn.Embedding(s.vocabulary, s.width)
        self.position = nn.Embedding(s.context_length, s.width) if s.position == "learned" else None
        self.distances = nn.Embedding(BUCKETS, s.heads) if s.position == "t5" else None
        self.embedding_norm = new_norm(s) if s.embedding_norm else None
        self.layers = nn.ModuleList(Layer(s) for _ in range(s.depth))
        self.final_norm = new_norm(s) if s.norm_place in ("pre", "sandwich") else None
        self.head = nn.Linear(s.width, s.vocabulary, bias=False)
        if s.tie_embeddings:
            self.head.weight = self.embedding.weight
        frequencies = s.rope_base ** -(torch.arange(0, s.head_width, 2).float() / s.head_width)
        self.register_buffer("inv_freq", frequencies if s.position in TURNED else None, persistent=False)
        self.register_buffer("slopes", alibi_slopes(s.heads) if s.position == "alibi" else None, persistent=False)
        self.start()

    @torch.no_grad()
    def start(self) -> None:
        """Draws weights: standard deviation 0.02, what ends in a residual over the square root of the number of
        residuals (GPT-2's rule), or by DeepNorm's beta (arXiv:2203.00555, table 2); with `base_width` what has more
        inputs than at the base, over the square root of how many times as many.
        """
        s, sums = self.config, 2 * self.config.depth
        grown = self.input_ratios()
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                continue  # norms are 1 and 0 already
            last = name.endswith(("out.weight", "down.weight", "down"))
            factor = (4 * sums) ** -0.25 if s.norm_place == "deep" else sums**-0.5
            nn.init.normal_(parameter, std=0.02 * (factor if last else 1.0) * grown.get(name, 1.0) ** -0.5)
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def input_ratios(self) -> dict[str, float]:
        """Parameter -> how many times as many inputs it has as at `base_width`, for `optim.parameter_groups`; those
        that have as many at every width (embeddings, norms, biases), or whose output is scaled instead (head, router),
        aren't named.
        """
        if self.config.width_ratio == 1:
            return {}
        return {
            name: self.config.width_ratio
            for name, parameter in self.layers.named_parameters(prefix="layers")
            if parameter.ndim > 1 and not name.endswith("router.weight")
        }

    def get_input_embeddings(self) -> nn.Embedding:
        """Rows of tokens."""
        return self.embedding

    def get_output_embeddings(self) -> nn.Linear:
        """What makes logits of hidden states: (..., W) -> (..., V)."""
        return self.head

    def forward(
        self,
        ids: Tensor,
        *,
        document: Tensor | None = None,
        position: Tensor | None = None,
        prefix: Tensor | None = None,
        real: Tensor | None = None,
    ) -> Decoded:
        """Hidden states of (B, T) ids.

        document (B, T): numbers of a row's texts, which don't see each other; None: one text a row, padded on the
        right. position (B, T): counted from 0 in each; None: through the row. prefix (B, T) bool: what every token of
        its text sees, for `mask=prefix`. real (B, T) bool: no padding, for the balance of experts.

        Raises:
            ValueError: rows longer than there are learned positions; a prefix for a causal decoder.
        """
        s, length = self.config, ids.shape[1]
        if self.position is not None and length > s.context_length and position is None:
            raise ValueError(f"context_length is {s.context_length}, but a text has {length} tokens")
        if prefix is not None and s.mask != "prefix":
            raise ValueError("a prefix needs mask=prefix; this decoder is causal")
        position = torch.arange(length, device=ids.device)[None] if position is None else position
        x = self.embedding(ids)
        if self.position is not None:
            x = x + self.position(position)
        if self.embedding_norm is not None:  # BLOOM, arXiv:2211.05100, sec. 3.2.2
            x = self.embedding_norm(x)
        if s.dropout:
            x = F.dropout(x, s.dropout, self.training)
        seen, balances = self._seen(position, document, prefix, real, x), []
        for layer in self.layers:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x, balance = checkpoint(layer, x, seen, use_reentrant=False)
            else:
                x, balance = layer(x, seen)
            balances.append(balance)
        x = x if self.final_norm is None else self.final_norm(x)
        x = x if s.width_ratio == 1 else x / s.width_ratio  # the head's multiplier, tied to the embeddings or not
        return Decoded(x, torch.stack(balances).mean() if s.experts else None)

    def logits(self, ids: Tensor, **how: Tensor | None) -> Tensor:
        """(B, T) -> (B, T, V); `how` as `forward` has it."""
        return self.head(self(ids, **how).hidden)

    def _seen(
        self, position: Tensor, document: Tensor | None, prefix: Tensor | None, real: Tensor | None, x: Tensor
    ) -> Seen:
        cosine, sine = (None, None) if self.inv_freq is None else rotations(self.inv_freq, position, x.dtype)
        mask = visible(x.shape[1], x.device, document, prefix)
        if self.slopes is not None:
            mask = with_alibi(self.slopes, mask, x.shape[1], x.dtype)
        if self.distances is not None:
            mask = with_distances(self.distances.weight, mask, x.shape[1], self.config.mask == "prefix", x.dtype)
        fading = self.config.position == "xpos"
        grown = growth(position, self.config.head_width, x.shape[1], x.dtype) if fading else None
        return Seen(mask, cosine, sine, real, grown)


def new_norm(settings: DecoderSettings) -> nn.Module:
    """LayerNorm with weight and bias, or RMSNorm (arXiv:1910.07467)."""
    kind = nn.LayerNorm if settings.norm == "layer" else nn.RMSNorm
    return kind(settings.width, eps=settings.eps)
