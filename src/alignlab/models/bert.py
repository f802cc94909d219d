"""Post-norm BERT blocks that ALBEF's text and fusion encoders are made of.

Legend: R rows (texts), T tokens, W width, P pictures, S image tokens, H heads, E head width (W = H * E). Masks: True =
keep.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alignlab.models.attention import attend


class ImageState(NamedTuple):
    """Keys and values of P pictures for one fusion layer, shared by every text that looks at them."""

    key: Tensor  # (P, H, S, E)
    value: Tensor  # (P, H, S, E)
    patch: Tensor | None = None  # (P, S, K) what words are compared with, where the layer's logits take that in
    bias: Tensor | None = None  # (P, 1, 1, S) added to all logits: hides padding where a text is looked at

    def of(self, picture: Tensor) -> "ImageState":
        """Those of some pictures: (M,)."""
        return ImageState(*(None if part is None else part.index_select(0, picture) for part in self))


def attention_bias(mask: Tensor, dtype: torch.dtype, causal: bool = False, directed_heads: int = 0) -> Tensor:
    """Additive form of a padding mask: (R, T) bool -> (R, 1, 1, T), 0 where kept and the lowest number where not.

    causal: (R, 1, T, T), where a token sees only itself and what stands before it.
    directed_heads: (R, H, T, T), where the first half of so many heads see no later token, the others no earlier one.
    """
    kept = mask[:, None, None, :]
    if causal or directed_heads:
        before = torch.ones(2 * mask.shape[1:], dtype=torch.bool, device=mask.device).tril()
        half = directed_heads // 2
        kept = kept & (before if causal else torch.stack([before] * half + [before.T] * (directed_heads - half)))
        # Padding sees itself, else it could see nothing: the lowest float32 is minus infinity in bfloat16, and a row of
        # those has no softmax.
        kept = kept | torch.eye(len(before), dtype=torch.bool, device=mask.device)
    bias = torch.zeros(kept.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill_(~kept, torch.finfo(dtype).min)


class TextEmbeddings(nn.Module):
    """Sum of word, position and (always the first) segment embeddings, normalised (arXiv:1810.04805, sec. 3)."""

    def __init__(self, vocab_size: int, width: int, max_positions: int, *, dropout: float, eps: float = 1e-12) -> None:
        super().__init__()
        self.word = nn.Embedding(vocab_size, width)
        self.position = nn.Embedding(max_positions, width)
        self.segment = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor) -> Tensor:
        """(R, T) int64 -> (R, T, W)."""
        length, limit = ids.shape[1], self.position.num_embeddings
        if length > limit:
            raise ValueError(f"a text of {length} tokens exceeds the net's {limit} positions: lower context_length")
        x = self.word(ids) + (self.position.weight[:length] + self.segment.weight[0])
        return self.dropout(self.norm(x))


class SelfAttention(nn.Module):
    """Multi-head self-attention with one matrix for query, key and value, then projection, residual and norm."""

    def __init__(self, width: int, heads: int, *, dropout: float, attention_dropout: float, eps: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"text width {width} is not a multiple of its {heads} heads")
        self.heads, self.attention_dropout = heads, attention_dropout
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor, bias: Tensor, num_queries: int | None = None) -> Tensor:
        """(R, T, W), (R, 1, 1 or T, T) -> (R, T, W), or (R, num_queries, W) where only the first tokens ask."""
        rows, length, width = x.shape
        if num_queries is None:
            # unbind rather than permute: the gradient of the joint matrix then needs no copy.
            joint = self.query_key_value(x).view(rows, length, 3, self.heads, -1).unbind(2)
            query, key, value = (part.transpose(1, 2) for part in joint)
        else:
            weight, offset = self.query_key_value.weight, self.query_key_value.bias
            query = F.linear(x[:, :num_queries], weight[:width], offset[:width])
            query = query.view(rows, num_queries, self.heads, -1).transpose(1, 2)
            joint = F.linear(x, weight[width:], offset[width:]).view(rows, length, 2, self.heads, -1).unbind(2)
            key, value = (part.transpose(1, 2) for part in joint)
            x, bias = x[:, :num_queries], bias[:, :, :num_queries]
        dropout = self.attention_dropout if self.training else 0.0
        mixed = attend(query, key, value, mask=bias.to(query.dtype), dropout=dropout)
        return self.norm(x + self.dropout(self.out(mixed.transpose(1, 2).flatten(2))))


class CrossAttention(nn.Module):
    """Attention from text to pictures whose keys and values are projected once and shared by all texts."""

    def __init__(
        self, width: int, image_width: int, heads: int, *, dropout: float, attention_dropout: float, eps: float
    ) -> None:
        super().__init__()
        self.heads, self.attention_dropout = heads, attention_dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(image_width, 2 * width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=eps)

    def image_state(self, tokens: Tensor) -> ImageState:
        """Keys and values of pictures: (P, S, image width) -> 2 x (P, H, S, E)."""
        pictures, length, _ = tokens.shape
        joint = self.key_value(tokens).view(pictures, length, 2, self.heads, -1).unbind(2)
        return ImageState(*(part.transpose(1, 2) for part in joint))

    def forward(
        self, x: Tensor, state: ImageState, picture: Tensor | None = None, words: Tensor | None = None
    ) -> Tensor:
        """Rows x (R, T, W) look at pictures -> (R, T, W).

        The first rows come in whole groups of P, the p-th row of a group looking at picture p: their queries are laid
        end to end, so keys and values are neither projected nor copied again. `picture` (M,) names the pictures of the
        last M rows. words (R, T, K): their products with the state's patches are added to all heads' logits.
        """
        query = self.query(x)
        words = None if words is None else words[:, : x.shape[1]]
        loose = 0 if picture is None else len(picture)
        whole, rest = slice(0, len(x) - loose), slice(len(x) - loose, None)
        mixed = self._grouped(query[whole], state, None if words is None else words[whole])
        if loose:
            chosen = self._grouped(query[rest], state.of(picture), None if words is None else words[rest])
            mixed = torch.cat([mixed, chosen])
        return self.norm(x + self.dropout(self.out(mixed)))

    def _grouped(self, query: Tensor, state: ImageState, words: Tensor | None) -> Tensor:
        rows, length, width = query.shape
        pictures = len(state.key)
        groups = rows // pictures
        assert groups * pictures == rows, f"{rows} rows are not whole groups of {pictures} pictures"
        query = query.view(groups, pictures, length, self.heads, -1).permute(1, 3, 0, 2, 4)
        query = query.reshape(pictures, self.heads, groups * length, -1)
        if words is not None:
            words = words.view(groups, pictures, length, -1).transpose(0, 1).reshape(pictures, groups * length, -1)
        dropout = self.attention_dropout if self.training else 0.0
        mixed = attend(query, state.key, state.value, mask=_added(words, state, query.dtype), dropout=dropout)
        mixed = mixed.view(pictures, self.heads, groups, length, -1).permute(2, 0, 3, 1, 4)
        return mixed.reshape(rows, length, width)

    def attention(self, x: Tensor, state: ImageState, words: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The plain form, one row a picture, with its attention map: (R, T, W), (R, H, T, S)."""
        query = self.query(x).view(*x.shape[:2], self.heads, -1).transpose(1, 2)
        logits = query @ state.key.transpose(2, 3) * query.shape[-1] ** -0.5
        added = _added(words, state, logits.dtype)
        weights = (logits if added is None else logits + added).softmax(-1)
        mixed = (weights @ state.value).transpose(1, 2).flatten(2)
        return self.norm(x + self.out(mixed)), weights


def _added(words: Tensor | None, state: ImageState, dtype: torch.dtype) -> Tensor | None:
    """What is added to logits: (P, T, K) -> (P, 1, 1 or T, S), or nothing where nothing is compared nor hidden."""
    bias = None if state.bias is None else state.bias.to(dtype)
    if words is None:
        return bias
    likeness = (words @ state.patch.transpose(1, 2))[:, None].to(dtype)
    return likeness if bias is None else likeness + bias


class FeedForward(nn.Module):
    """Two linear maps with an exact GELU between them, residual and norm."""

    def __init__(self, width: int, hidden: int, *, dropout: float, eps: float) -> None:
        super().__init__()
        self.inner = nn.Linear(width, hidden)
        self.out = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(..., W) -> (..., W)."""
        return self.norm(x + self.dropout(self.out(F.gelu(self.inner(x)))))


class TextLayer(nn.Module):
    """Self-attention and feed-forward."""

    entry_points = ("forward",)  # methods that use parameters, for `alignlab.strategies.sharding`

    def __init__(
        self, width: int, heads: int, *, mlp_ratio: float, dropout: float, attention_dropout: float, eps: float
    ):
        super().__init__()
        self.self_attention = SelfAttention(width, heads, dropout=dropout, attention_dropout=attention_dropout, eps=eps)
        self.feed_forward = FeedForward(width, int(width * mlp_ratio), dropout=dropout, eps=eps)

    def forward(self, x: Tensor, bias: Tensor, num_queries: int | None = None) -> Tensor:
        """(R, T, W) -> (R, T, W), or (R, num_queries, W)."""
        return self.feed_forward(self.self_attention(x, bias, num_queries))


class FusionLayer(TextLayer):
    """Self-attention, cross-attention to a picture, feed-forward (arXiv:2107.07651, sec. 3.1)."""

    entry_points = ("forward", "attend", "finish", "image_state")

    def __init__(
        self,
        width: int,
        image_width: int,
        heads: int,
        *,
        mlp_ratio: float,
        dropout: float,
        attention_dropout: float,
        eps: float,
    ) -> None:
        settings = {"dropout": dropout, "attention_dropout": attention_dropout, "eps": eps}
        super().__init__(width, heads, mlp_ratio=mlp_ratio, **settings)
        self.cross_attention = CrossAttention(width, image_width, heads, **settings)

    def image_state(self, tokens: Tensor) -> ImageState:
        """Keys and values of pictures for this layer: (P, S, image width) -> 2 x (P, H, S, E)."""
        return self.cross_attention.image_state(tokens)

    def finish(self, x: Tensor) -> Tensor:
        """The feed-forward without the attentions: (..., W) -> (..., W)."""
        return self.feed_forward(x)

    def attend(
        self,
        x: Tensor,
        bias: Tensor,
        state: ImageState,
        picture: Tensor | None = None,
        num_queries: int | None = None,
        words: Tensor | None = None,
    ) -> Tensor:
        """Both attentions without the feed-forward: (R, T, W) -> (R, T or num_queries, W)."""
        return self._attended(x, bias, state, picture, num_queries, words)

    def forward(
        self,
        x: Tensor,
        bias: Tensor,
        state: ImageState,
        picture: Tensor | None = None,
        num_queries: int | None = None,
        words: Tensor | None = None,
    ) -> Tensor:
        """(R, T, W) -> (R, T or num_queries, W)."""
        return self.feed_forward(self._attended(x, bias, state, picture, num_queries, words))

    def _attended(
        self,
        x: Tensor,
        bias: Tensor,
        state: ImageState,
        picture: Tensor | None,
        num_queries: int | None,
        words: Tensor | None,
    ) -> Tensor:
        return self.cross_attention(self.self_attention(x, bias, num_queries), state, picture, words)


class MaskedLanguageHead(nn.Module):
    """Dense, GELU, norm, then the transposed word embeddings plus a bias of their own (arXiv:1810.04805)."""

    def __init__(self, width: int, vocab_size: int, *, eps: float = 1e-12) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, x: Tensor, word_embeddings: Tensor) -> Tensor:
        """(M, W), (V, W) -> logits (M, V)."""
        return F.linear(self.norm(F.gelu(self.dense(x))), word_embeddings, self.bias)
