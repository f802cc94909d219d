"""What a decoder may be told: the choices by which the large language models differ (arXiv:2303.18223, table 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

NormKind = Literal["layer", "rms"]
NormPlace = Literal["pre", "post", "sandwich", "deep"]
Activation = Literal["gelu", "gelu_tanh", "relu", "silu", "swiglu", "geglu"]
Position = Literal["learned", "rope", "xpos", "alibi", "t5", "none"]
Mask = Literal["causal", "prefix"]

TURNED = ("rope", "xpos")  # positions that turn queries and keys
GATED = {"swiglu": "silu", "geglu": "gelu"}  # a gated MLP's activation -> that of its gate
_CHOICES = {
    "norm": NormKind,
    "norm_place": NormPlace,
    "activation": Activation,
    "position": Position,
    "mask": Mask,
}


@dataclass(frozen=True)
class DecoderSettings:
    """Sizes and choices of a decoder; `new_settings` says what each is.

    Raises:
        ValueError: a choice that there isn't, or sizes that don't fit each other.
    """

    vocabulary: int
    width: int
    depth: int
    heads: int
    kv_heads: int
    mlp_width: int
    context_length: int
    norm: NormKind
    norm_place: NormPlace
    activation: Activation
    position: Position
    mask: Mask
    rope_base: float
    bias: bool
    tie_embeddings: bool
    experts: int
    experts_per_token: int
    eps: float
    embedding_norm: bool
    dropout: float
    base_width: int | None = None
    base_heads: int | None = None

    def __post_init__(self) -> None:
        for name, kind in _CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name}={getattr(self, name)} is none of {', '.join(get_args(kind))}")
        for name in ("width", "depth", "heads", "kv_heads", "mlp_width", "context_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.width % self.heads:
            raise ValueError(f"width={self.width} must be a multiple of heads={self.heads}")
        if self.position in TURNED and self.head_width % 2:
            raise ValueError(f"width={self.width} must be an even multiple of heads={self.heads}: positions turn pairs")
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads={self.kv_heads} must divide heads={self.heads}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must be at least 0 and below 1")
        if self.experts < 0 or (self.experts and not 1 <= self.experts_per_token <= self.experts):
            raise ValueError(
                f"experts_per_token is {self.experts_per_token}; it must be 1 to experts={self.experts} (0: no mixture)"
            )
        if self.base_heads is not None and self.base_width is None:
            raise ValueError(f"base_heads={self.base_heads} means nothing without base_width")
        if self.base_width is not None and (self.base_width < 1 or self.base_width % self._heads_then):
            which = "heads" if self.base_heads is None else "base_heads"
            raise ValueError(f"base_width={self.base_width} must be a multiple of {which}={self._heads_then}")
        if self.experts and self.bias:
            raise ValueError("experts: those of a mixture have no bias; set bias=false")

    @property
    def head_width(self) -> int:
        """Columns of one head."""
        return self.width // self.heads

    @property
    def gate(self) -> str:
        """Activation of the MLP, of its gate where it has one."""
        return GATED.get(self.activation, self.activation)

    @property
    def gated(self) -> bool:
        """Whether the MLP multiplies its activation with a second projection."""
        return self.activation in GATED

    @property
    def max_position_embeddings(self) -> int | None:
        """Longest text in tokens, under the name that `models.language.context` looks for; None: no end."""
        return self.context_length if self.position in ("learned", *TURNED) else None

    @property
    def residual_scale(self) -> float:
        """What a residual is multiplied with before it is added to: DeepNorm's alpha of a decoder (arXiv:2203.00555,
        table 2), else 1.
        """
        return (2 * self.depth) ** 0.25 if self.norm_place == "deep" else 1.0

    @property
    def width_ratio(self) -> float:
        """How many times as wide it is as the decoder that its rates were found with."""
        return 1.0 if self.base_width is None else self.width / self.base_width

    @property
    def query_scale(self) -> float:
        """What queries are multiplied with besides 1 / sqrt(head width): with `base_width` products of queries and keys
        are divided by the head width (arXiv:2203.03466, definition 4.1), and as they were at the base.
        """
        return 1.0 if self.base_width is None else (self.base_width / self._heads_then / self.head_width) ** 0.5

    @property
    def _heads_then(self) -> int:
        return self.heads if self.base_heads is None else self.base_heads


def new_settings(
    *,
    vocabulary: int,
    width: int = 192,
    depth: int = 4,
    heads: int = 6,
    kv_heads: int | None = None,
    mlp_width: int | None = None,
    context_length: int = 256,
    norm: NormKind = "rms",
    norm_place: NormPlace = "pre",
    activation: Activation = "swiglu",
    position: Position = "rope",
    rope_base: float = 10000.0,
    mask: Mask = "causal",
    bias: bool = False,
    tie_embeddings: bool = True,
    experts: int = 0,
    experts_per_token: int = 2,
    eps: float = 1e-5,
    embedding_norm: bool = False,
    dropout: float = 0.0,
    base_width: int | None = None,
    base_heads: int | None = None,
) -> DecoderSettings:
    """Settings of a decoder, Llama's where nothing is said.

    Args:
        kv_heads: heads of keys and values that the query heads share in groups (arXiv:2305.13245); 1: one for all
            (arXiv:1911.02150); None: as many as `heads`.
        mlp_width: None: 4 width, with a gated activation 8/3 width rounded up to 32.
        context_length: positions.
        position: "rope" turns pairs (arXiv:2104.09864), "xpos" lets what is far fade besides (arXiv:2212.10554),
            "alibi" is a fixed bias (arXiv:2108.12409), "t5" a learned one for each of 32 distances, the same in all
            layers (arXiv:1910.10683, sec. 2.1).
        norm_place: "pre" before each part, "post" after each residual, "sandwich" before and after each part, "deep"
            as "post" with scaled residuals (DeepNorm).
        mask: "prefix": each text begins with a part whose tokens all see each other.
        bias: of all linear maps but the head.
        experts: MLPs of a layer of which each token takes `experts_per_token`; 0: one for all.
        eps: of the norms.
        embedding_norm: a norm behind the embeddings (BLOOM).
        dropout: behind the embeddings and each part.
        base_width: maximal update parametrisation (arXiv:2203.03466, table 8): start, rates and logits grow or shrink
            with width / base_width so that a rate found at the base holds at this width; at the base all is as without.
            `mlp_width` is to grow with `width`.
        base_heads: of the base; None: as many as `heads`, so that heads grow with the width.
    """
    kv_heads = heads if kv_heads is None else kv_heads
    mlp_width = mlp_width or (-(-width * 8 // 96) * 32 if activation in GATED else 4 * width)
    sizes = (vocabulary, width, depth, heads, kv_heads, mlp_width, context_length)
    choices = (norm, norm_place, activation, position, mask, rope_base, bias, tie_embeddings)
    rest = (experts, experts_per_token, eps, embedding_norm, dropout, base_width, base_heads)
    return DecoderSettings(*sizes, *choices, *rest)
