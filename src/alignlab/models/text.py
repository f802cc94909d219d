"""Text tower of two-tower models: a pre-norm transformer that returns one vector per text.

Legend: N texts, T tokens, W width. Masks are True = keep; padding stands on the right.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from alignlab.models.attention import PreNormBlock
from alignlab.models.vision import ACTIVATIONS


class TextTower(nn.Module):
    """Token and position embeddings, `depth` blocks, final norm; one token or the mean of all stands for the text.

    causal: a token sees only what stands before it (CLIP); otherwise all valid tokens (SigLIP). pool: "last" valid
    token, "first", or the "mean" of the valid ones. Texts may be shorter than `context_length`; padding never changes
    a result. In the last block only the pooled token is computed in full.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        context_length: int = 77,
        width: int = 512,
        depth: int = 12,
        heads: int = 8,
        mlp_ratio: float = 4.0,
        causal: bool = True,
        pool: Literal["last", "first", "mean"] = "last",
        activation: Literal["gelu", "gelu_tanh", "quick_gelu"] = "gelu",
        norm_eps: float = 1e-6,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"text width={width} must be a multiple of heads={heads}")
        if causal and pool == "first":
            raise ValueError(
                "pool=first sees nothing but the first token when causal=True: take pool=last or causal=False"
            )
        if pool not in ("last", "first", "mean"):
            raise ValueError(f"pool={pool} is none of last, first, mean")
        self.width, self.causal, self.pool = width, causal, pool
        self.context_length = context_length
        self.gradient_checkpointing = gradient_checkpointing
        norm = partial(nn.LayerNorm, eps=norm_eps)
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.pos_embed = nn.Parameter(torch.empty(context_length, width))
        self.blocks = nn.ModuleList(
            PreNormBlock(width, heads, mlp_ratio, qkv_bias=True, norm_layer=norm, act_layer=ACTIVATIONS[activation])
            for _ in range(depth)
        )
        self.norm = norm(width)
        self._initialise()

    def _initialise(self) -> None:
        # arXiv:2103.00020, released code: residual branches shrink with depth so that the sum keeps its scale
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.pos_embed, std=0.01)
        width, depth = self.width, len(self.blocks)
        for block in self.blocks:
            for layer, std in (
                (block.attn.qkv, width**-0.5),
                (block.attn.proj, width**-0.5 * (2 * depth) ** -0.5),
                (block.mlp.fc1, (2 * width) ** -0.5),
                (block.mlp.fc2, width**-0.5 * (2 * depth) ** -0.5),
            ):
                trunc_normal_(layer.weight, std=std)
                nn.init.zeros_(layer.bias)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Encode texts: (N, T) int64, (N, T) bool -> (N, W). Raises ValueError if T exceeds the context length."""
        tokens = ids.shape[1]
        if tokens > self.context_length:
            raise ValueError(f"a text of {tokens} tokens exceeds context_length={self.context_length}")
        x = self.token_embedding(ids) + self.pos_embed[:tokens]
        # causal attention never looks right, where the padding is: it needs no mask but in the pooled last block
        keys = None if self.causal else mask[:, None, None]
        for block in self.blocks[:-1]:
            x = self._run(block, x, keys, self.causal)
        if self.pool == "mean":
            x = self.norm(self._run(self.blocks[-1], x, keys, self.causal))
            weight = mask.to(x.dtype).unsqueeze(-1)
            return (x * weight).sum(1) / weight.sum(1).clamp_min(1)
        index = self.pooled_position(mask)
        x = self._run(self.blocks[-1].for_one, x, index, mask[:, None, None])
        return self.norm(x[:, 0])

    def pooled_position(self, mask: Tensor) -> Tensor:
        """Position of the token that stands for the text: (N, T) bool -> (N,) int64; 0 for an empty text."""
        if self.pool == "first":
            return torch.zeros(len(mask), dtype=torch.int64, device=mask.device)
        return (mask.sum(1) - 1).clamp_min(0)

    def _run(self, function: Callable[..., Tensor], *inputs: object) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(function, *inputs, use_reentrant=False)
        return function(*inputs)
