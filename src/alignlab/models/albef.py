"""ALBEF: a vision transformer, a text encoder, and a fusion encoder that reads both (arXiv:2107.07651, sec. 3.1).

Legend: B pictures, N texts, R rows of text, T tokens, S image tokens, W text width, D joint embedding, M masked
positions.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from alignlab.distributed.shards import clamp_parameter
from alignlab.models.bert import (
    FusionLayer,
    ImageState,
    MaskedLanguageHead,
    TextEmbeddings,
    TextLayer,
    attention_bias,
)
from alignlab.models.bert_weights import load_bert
from alignlab.models.token_interaction import LateInteraction, PatchPositions
from alignlab.types.pairs import ImageEncoding, TextEncoding


class FusedRows(NamedTuple):
    """What the fusion encoder gives for one training step."""

    matching: Tensor  # (R_itm, W) at [CLS]
    masked: Tensor | None  # (M, W) at the masked positions


class AlbefEncoder(nn.Module):
    """Everything of ALBEF that has a momentum twin: towers, fusion layers, projections and language head.

    Args:
        vision: builds a tower; embed_dim: D; the others are BERT's sizes.
        causal: a token of text sees only what stands before it, in the text and in the fusion layers, so that the head
            can learn to write.
        directed_heads: ours, for small nets, as what follows. In the fusion's self-attention half of the heads see no
            later word, the others no earlier one: a hidden "left of" can tell what stands before it from what stands
            after.
        late_interaction_dim: of a space in which words and patches are compared (`LateInteraction`); 0: none.
        affinity: with such a space, what a word's likeness to a patch counts in the first cross-attention.
        text_weights: of a BERT, by hub id or folder, which text and fusion layers start from; None: at random.
        fusion_positions: adds to the image tokens that the fusion reads where they lie.
    """

    layer_lists = ("text", "fusion")  # one tower to `optim.layer_decay`, as the layers of BERT that they start from

    def __init__(
        self,
        vision: Callable[[], nn.Module],
        *,
        vocab_size: int,
        text_width: int = 768,
        heads: int = 12,
        text_layers: int = 6,
        fusion_layers: int = 6,
        mlp_ratio: float = 4.0,
        max_positions: int = 512,
        embed_dim: int = 256,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        gradient_checkpointing: bool = False,
        causal: bool = False,
        directed_heads: bool = False,
        late_interaction_dim: int = 0,
        affinity: float = 5.0,
        fusion_positions: bool = False,
        text_weights: str | None = None,
    ) -> None:
        super().__init__()
        if fusion_layers < 1:
            raise ValueError(f"fusion_layers={fusion_layers}: ALBEF needs at least one fusion layer")
        if directed_heads and (causal or heads < 2):
            raise ValueError(
                f"directed_heads=True needs two heads (heads={heads}) that may look ahead (causal={causal})"
            )
        eps = 1e-12
        self.vision = vision()
        self.embeddings = TextEmbeddings(vocab_size, text_width, max_positions, dropout=dropout, eps=eps)
        block = {"mlp_ratio": mlp_ratio, "dropout": dropout, "attention_dropout": attention_dropout, "eps": eps}
        self.text = nn.ModuleList(TextLayer(text_width, heads, **block) for _ in range(text_layers))
        self.fusion = nn.ModuleList(
            FusionLayer(text_width, self.vision.width, heads, **block) for _ in range(fusion_layers)
        )
        self.image_projection = nn.Linear(self.vision.width, embed_dim)
        self.text_projection = nn.Linear(text_width, embed_dim)
        self.language_head = MaskedLanguageHead(text_width, vocab_size, eps=eps)
        self.late_interaction = None
        if late_interaction_dim:
            self.late_interaction = LateInteraction(text_width, self.vision.width, late_interaction_dim, affinity)
        self.fusion_positions = PatchPositions(self.vision.grid, self.vision.width) if fusion_positions else None
        self.gradient_checkpointing, self.causal = gradient_checkpointing, causal
        self.directed_heads = heads if directed_heads else 0
        for part in (self.embeddings, self.text, self.fusion, self.language_head):
            initialise_bert(part, text_width)
        if text_weights is not None:
            load_bert(self, text_weights)

    def encode_image(self, image: Tensor) -> ImageEncoding:
        """(B, 3, H, W) -> features (B, D) and tokens (B, S, vision width)."""
        tokens = self.vision.tokens(image)
        return ImageEncoding(F.normalize(self.image_projection(tokens[:, 0]).float(), dim=-1), tokens)

    def text_tokens(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Unimodal text layers: (R, T), (R, T) -> (R, T, W)."""
        x = self.embeddings(ids)
        bias = attention_bias(mask, x.dtype, self.causal)
        for layer in self.text:
            x = self._run(layer, x, bias)
        return x

    def text_features(self, tokens: Tensor) -> Tensor:
        """Joint embedding of texts: (R, T, W) -> (R, D)."""
        return F.normalize(self.text_projection(tokens[:, 0]).float(), dim=-1)

    def encode_text(self, ids: Tensor, mask: Tensor) -> TextEncoding:
        """(N, T), (N, T) -> features (N, D) and tokens (N, T, W)."""
        tokens = self.text_tokens(ids, mask)
        return TextEncoding(self.text_features(tokens), tokens)

    def image_states(self, tokens: Tensor) -> list[ImageState]:
        """Keys and values of pictures for every fusion layer, projected once: (B, S, vision width)."""
        placed = tokens if self.fusion_positions is None else self.fusion_positions(tokens)
        states = [layer.image_state(placed) for layer in self.fusion]
        if self.late_interaction is not None:
            states[0] = states[0]._replace(patch=self.late_interaction.patches(tokens))
        return states

    def fuse(
        self,
        tokens: Tensor,
        mask: Tensor,
        states: list[ImageState],
        *,
        picture: Tensor | None = None,
        masked_rows: slice | None = None,
        masked_position: Tensor | None = None,
        layers: Sequence[FusionLayer] | None = None,
    ) -> FusedRows:
        """All texts of a step through the fusion layers in one call; or through others, each with its state.

        Rows (R, T, W) look at pictures as `CrossAttention.forward` says. In the last layer matching rows compute [CLS]
        only; rows in `masked_rows` attend in full but only `masked_position` (M,), an index into them flattened, goes
        through the feed-forward.
        """
        bias, asked, x = self.fusion_bias(mask, tokens.dtype), self.asking_words(tokens), tokens
        *first, last = self.fusion if layers is None else layers
        for layer, state in zip(first, states[:-1], strict=True):
            x = self._run(layer, x, bias, state, picture, None, None if state.patch is None else asked)
        state = states[-1]
        words = None if state.patch is None else asked
        if masked_rows is None:
            return FusedRows(self._run(last, x, bias, state, picture, 1, words)[:, 0], None)
        asking = (None, None) if words is None else (words[masked_rows], words[masked_rows.stop :])
        masked = self._run(last.attend, x[masked_rows], bias[masked_rows], state, None, None, asking[0])
        masked = last.finish(masked.flatten(0, 1).index_select(0, masked_position))
        if masked_rows == slice(0, len(x)):
            return FusedRows(x.new_zeros(0, x.shape[-1]), masked)
        assert masked_rows.start == 0, "masked rows come first"
        rest = slice(masked_rows.stop, None)
        return FusedRows(self._run(last, x[rest], bias[rest], state, picture, 1, asking[1])[:, 0], masked)

    def fusion_bias(self, mask: Tensor, dtype: torch.dtype) -> Tensor:
        """What the fusion's self-attention adds to its logits: (R, T) -> (R, 1 or H, 1 or T, T)."""
        return attention_bias(mask, dtype, self.causal, self.directed_heads)

    def asking_words(self, tokens: Tensor) -> Tensor | None:
        """What the first fusion layer compares with patches: (R, T, W) -> (R, T, K), None without late interaction."""
        return None if self.late_interaction is None else self.late_interaction.asking_words(tokens)

    def language_logits(self, hidden: Tensor) -> Tensor:
        """(M, W) -> (M, V)."""
        return self.language_head(hidden, self.embeddings.word.weight)

    def _run(self, layer: Callable[..., Tensor], *inputs: object) -> Tensor:
        return run_layer(layer, self.gradient_checkpointing, *inputs)


class Albef(nn.Module):
    """The encoder with the two things that have no twin: temperature and matching head.

    The temperature divides and is learned as it is, not its logarithm, so a large learning rate can throw it to the
    lower
    end of `temperature_range` within a few steps: raise that end where the rate is far above the published 1e-4.
    """

    def __init__(
        self,
        encoder: Callable[..., AlbefEncoder],
        *,
        vocab_size: int,
        temperature: float = 0.07,
        temperature_range: tuple[float, float] = (0.001, 0.5),
    ) -> None:
        super().__init__()
        low, high = temperature_range
        if not 0.0 < low <= temperature <= high:
            raise ValueError(f"temperature={temperature} must lie in temperature_range=[{low}, {high}]")
        self.temperature_range = (low, high)
        self.encoder = encoder(vocab_size=vocab_size)
        self.temperature = nn.Parameter(torch.tensor([temperature]))  # (1,) and not 0-d for FSDP2
        self.matching_head = nn.Linear(self.encoder.embeddings.word.embedding_dim, 2)
        # logarithm of what likeness of words and patches is multiplied with in its loss, learned as CLIP's
        self.token_scale = nn.Parameter(torch.tensor([30.0]).log()) if self.encoder.late_interaction else None

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of image patches."""
        return self.encoder.vision.grid

    @property
    def pointing_layer(self) -> int:
        """The fusion layer whose attention tells where a word is: the first where words are compared with patches, or
        else the middle one, the third of six in the reference.
        """
        return (len(self.encoder.fusion) - 1) // 2 if self.encoder.late_interaction is None else 0

    @property
    def scale(self) -> Tensor:
        """(1,) what similarities are multiplied with: 1 / temperature."""
        return 1 / self.temperature

    def clamp_temperature(self) -> None:
        """Keep the temperature in its range."""
        clamp_parameter(self.temperature, *self.temperature_range)

    def encode_image(self, image: Tensor) -> ImageEncoding:
        """(B, 3, H, W) -> features (B, D) and tokens (B, S, vision width)."""
        return self.encoder.encode_image(image)

    def encode_text(self, ids: Tensor, mask: Tensor) -> TextEncoding:
        """(N, T), (N, T) -> features (N, D) and tokens (N, T, W)."""
        return self.encoder.encode_text(ids, mask)

    def image_states(self, tokens: Tensor) -> list[ImageState]:
        """Keys and values of pictures for every fusion layer: (B, S, vision width)."""
        return self.encoder.image_states(tokens)

    def match(self, states: list[ImageState], text_tokens: Tensor, text_mask: Tensor) -> Tensor:
        """ITM logits of N texts with P pictures, class 1 = match: states of (P, ...), (N, T, W), (N, T) -> (N, 2).

        One picture is every text's; of several the p-th is that of the p-th text of each group of P.
        """
        return self.matching_head(self.encoder.fuse(text_tokens, text_mask, states).matching)

    def match_with_attention(
        self, image_tokens: Tensor, text_tokens: Tensor, text_mask: Tensor, layer: int
    ) -> tuple[Tensor, Tensor]:
        """ITM logits (B, 2) of B pairs and the cross-attention of one fusion layer (B, heads, T, S), kept in the
        graph.
        """
        encoder, x, kept = self.encoder, text_tokens, None
        bias, words, fusion = encoder.fusion_bias(text_mask, x.dtype), encoder.asking_words(x), encoder.fusion
        if not 0 <= layer < len(fusion):
            raise ValueError(f"fusion layer {layer} does not exist: this net has layers 0 to {len(fusion) - 1}")
        for index, (block, state) in enumerate(zip(fusion, self.image_states(image_tokens), strict=True)):
            if index == layer:
                x, kept = block.cross_attention.attention(block.self_attention(x, bias), state, words)
                x = block.feed_forward(x)
            else:
                x = block(x, bias, state, None, None, words)
            words = None
        return self.matching_head(x[:, 0]), kept


def run_layer(layer: Callable[..., Tensor], again: bool, *inputs: object) -> Tensor:
    """A layer's output; again: computed anew in the backward pass, which then needs its inputs alone."""
    if again and torch.is_grad_enabled():
        return checkpoint(layer, *inputs, use_reentrant=False)
    return layer(*inputs)


def initialise_bert(module: nn.Module, width: int) -> None:
    """Normal weights and zero biases as BERT, whose deviation of 0.02 at width 768 grows for narrower nets."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=0.02 * (768 / width) ** 0.5)
        if isinstance(part, nn.Linear):
            nn.init.zeros_(part.bias)
