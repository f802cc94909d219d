"""Pre-norm transformer blocks with fused attention, whole or for one pooled token only.

The parameters live in timm's `Block` (norm1, attn.qkv, attn.proj, norm2, mlp.fc1, mlp.fc2); the computation here is
equal to timm's forward with fewer copies. Legend: B batch, N tokens, W width, H heads. Masks are True = keep.
"""

import torch
import torch.nn.functional as F
from timm.layers import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn

# Whether tensors on a CPU stand for ones on a GPU, while what would be kept there is counted (cost/imagined.py).
as_on_a_gpu = False


def is_plain(block: nn.Module) -> bool:
    """Whether `PreNormBlock` computes the same as this block: timm's standard one, in whatever configuration but
    gated.
    """
    if type(block) not in (Block, PreNormBlock) or type(block.attn) is not Attention:
        return False
    return getattr(block.attn, "gate", None) is None and isinstance(
        getattr(block.attn, "norm", nn.Identity()), nn.Identity
    )


class PreNormBlock(Block):
    """timm's block with faster forwards: whole (`forward`), or with the output of one token only (`for_one`).

    Each is a call of the block itself, so that what hooks into modules (sharding, compilation) sees every use of its
    parameters.
    """

    entry_points = ("forward", "for_one")  # methods that use parameters, for `alignlab.strategies.sharding`

    def forward(self, x: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Apply the whole block: (B, N, W) -> (B, N, W). mask: (B, 1, N or 1, N) bool; causal needs mask=None."""
        attn = self.attn
        batch, tokens, _ = x.shape
        # unbinding dimension 2 keeps the gradient of qkv contiguous, which the usual permute(2, 0, 3, 1, 4) doesn't
        query, key, value = attn.qkv(self.norm1(x)).view(batch, tokens, 3, attn.num_heads, attn.head_dim).unbind(2)
        y = _attend(attn, query, key, value, mask, causal)
        x = x + self.drop_path1(self.ls1(y))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))

    def for_one(self, x: Tensor, index: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Compute only one token's output: keys and values of all tokens, query, projection and MLP of one.

        x: (B, N, W); index: (B,) position of the token, None = the first; mask: (B, 1, 1, N) bool of the keys it may
        see. Returns (B, 1, W), equal to the whole block's output at that position.
        """
        attn = self.attn
        batch, tokens, _ = x.shape
        inner = attn.num_heads * attn.head_dim
        normed = self.norm1(x)
        weight, bias = attn.qkv.weight, attn.qkv.bias
        query = F.linear(take_token(normed, index), weight[:inner], None if bias is None else bias[:inner])
        key, value = (
            F.linear(normed, weight[inner:], None if bias is None else bias[inner:])
            .view(batch, tokens, 2, attn.num_heads, attn.head_dim)
            .unbind(2)
        )
        y = _attend(attn, query.view(batch, 1, attn.num_heads, attn.head_dim), key, value, mask, False)
        x = take_token(x, index) + self.drop_path1(self.ls1(y))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


def take_token(x: Tensor, index: Tensor | None) -> Tensor:
    """Pick one token per row: (B, N, W), (B,) -> (B, 1, W); index None = the first."""
    if index is None:
        return x[:, :1]
    return x.gather(1, index.view(-1, 1, 1).expand(-1, 1, x.shape[-1]))


def _attend(attn: Attention, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    # query (B, M, H, D), key and value (B, N, H, D) -> (B, M, W)
    batch, rows = query.shape[:2]
    query, key = attn.q_norm(query.transpose(1, 2)), attn.k_norm(key.transpose(1, 2))
    dropout = attn.attn_drop.p if attn.training else 0.0
    y = attend(query, key, value.transpose(1, 2), mask=mask, dropout=dropout, causal=causal)
    return attn.proj_drop(attn.proj(y.transpose(1, 2).reshape(batch, rows, -1)))


def attend(
    query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None = None, dropout: float = 0.0, causal: bool = False
) -> Tensor:
    """Scaled dot-product attention: (B, H, N, D), (B, H, M, D) twice -> (B, H, N, D).

    Fused, except in bfloat16 on a CPU, where the backward pass of torch's fused kernel takes 3 to 8 times as long as
    the plain products. mask: bool, True = keep, or additive; it broadcasts to (B, H, N, M).
    """
    if query.device.type != "cpu" or query.dtype != torch.bfloat16 or as_on_a_gpu:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=causal)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return F.dropout(torch.softmax(scores, -1), dropout) @ value
