"""A decoder from weights: each matrix is read, cut to this process's part and handed to the kind of linear that will
hold it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from alignlab.inference.native.architecture import Architecture, Piece, Shard, joined
from alignlab.inference.native.decoder import Decoder, LayerSource
from alignlab.inference.native.linears import Embedding, Layer, Linear, Norm, SideBySide
from alignlab.inference.native.quantization import Int8Linear
from alignlab.inference.native.weights import LiveWeights, StoredRows, Weights

MakeLinear = Callable[[Tensor, Tensor | None], Linear]  # weight (O, I) and bias -> what computes with them
MakeEmbedding = Callable[[Tensor, Linear | None], Embedding]
Part = Literal["qkv", "out", "up", "down"]


class DecoderReader:
    """Reads the parts of a decoder, whole or a shard of it.

    Args:
        make: what becomes of a matrix.
        make_embedding: likewise of the embedding, given the head that was made of the same matrix, if it is the same.
        dtype: of everything; None keeps the file's (a live model's parameters are never converted).
    """

    def __init__(
        self,
        weights: Weights,
        architecture: Architecture,
        dtype: torch.dtype | None = None,
        shard: Shard | None = None,
        device: torch.device | str = "cpu",
        make: MakeLinear = Linear,
        make_embedding: MakeEmbedding = lambda weight, head: Embedding(weight),
    ) -> None:
        self.weights, self.architecture, self.dtype = weights, architecture, dtype
        self.shard = shard or architecture.whole()
        self.make, self.make_embedding = make, make_embedding
        self.by_rows = False  # `make` takes matrices as `StoredRows` too
        self.live = isinstance(weights, LiveWeights)
        self.device = weights.device if isinstance(weights, LiveWeights) else torch.device(device)

    def decoder(self, layers: LayerSource | None = None, **collectives: Callable[[Tensor], Tensor]) -> Decoder:
        """The whole decoder; `layers` if they come from elsewhere (streamed ones)."""
        a = self.architecture
        embedding, head = self._ends()
        positions, norm = a.names.get("positions"), a.names.get("embedding_norm")
        return Decoder(
            architecture=a,
            shard=self.shard,
            embedding=embedding,
            head=head,
            layers=[self.layer(index) for index in range(a.layers)] if layers is None else layers,
            final_norm=self.norm(a.names["final_norm"]),
            position_embedding=self.tensor(positions + ".weight") if positions else None,
            embedding_norm=self.norm(norm) if norm else None,
            **collectives,
        )

    def head_name(self) -> str | None:
        """The output matrix's name, or None where it is the embedding."""
        names = (f"{self.architecture.names['head']}.weight", "lm_head.weight")
        return next((name for name in names if name in self.weights), None)

    def _ends(self) -> tuple[Embedding, Linear]:
        """Embedding and output matrix; what a kind of linear makes of them is all that stays."""
        name = self.head_name()
        embedding = self._rows(self.full_name(self.architecture.names["embedding"] + ".weight"))
        head = self.make(embedding if name is None else self._rows(name), None)
        return self.make_embedding(embedding, head if name is None else None), head

    def _rows(self, name: str) -> Tensor | StoredRows:
        """This process's rows of the vocabulary."""
        rows = self.shard.vocabulary
        if self.by_rows and self.dtype is not None:
            return StoredRows(self.weights, self.dtype, [(name, *rows)])
        return self._convert(self.weights.read(name, 0, *rows))

    def layer(self, index: int) -> Layer:
        """One block."""
        names = self.architecture.names
        return Layer(
            norm1=self.norm(names["norm1"].format(i=index)),
            norm2=self.norm(names["norm2"].format(i=index)),
            qkv=self.linear("qkv", index),
            out=self.linear("out", index),
            up=self.linear("up", index),
            down=self.linear("down", index),
        )

    def norm(self, module: str) -> Norm:
        """A norm; RMSNorm has no bias."""
        bias = None if self.architecture.rms_norm else self.tensor(module + ".bias")
        return Norm(self.tensor(module + ".weight"), bias, self.architecture.eps)

    def linear(self, part: Part, index: int) -> Linear:
        """One of a block's four maps."""
        pieces, dim = self.architecture.pieces(part, self.shard)
        pieces = joined(pieces)
        if self.by_rows and self.dtype is not None and (rows := self._stored(pieces, dim, index)) is not None:
            biases = [bias for piece in pieces if (bias := self._bias(piece, dim, index)) is not None]
            return self.make(rows, torch.cat(biases) if biases else None)
        if self.live:
            parts = [self._live(piece, dim, index) for piece in pieces]
            return parts[0] if len(parts) == 1 else SideBySide(parts)
        pieces_read = [self._piece(piece, dim, index) for piece in pieces]
        if len(pieces_read) == 1:
            return self.make(*pieces_read[0])
        biases = [bias for _, bias in pieces_read if bias is not None]
        return self.make(torch.cat([weight for weight, _ in pieces_read]), torch.cat(biases) if biases else None)

    def _live(self, piece: Piece, dim: int, index: int) -> Linear:
        """A live model's matrix where it lies; one in 8 bits stays so."""
        weight, bias = self._piece(piece, dim, index)
        if weight.dtype != torch.int8:
            return self.make(weight, bias)
        scale = self.tensor(piece.module.format(i=index) + ".scale", *((piece.start, piece.stop) if dim == 0 else ()))
        return Int8Linear.rounded(weight, scale, bias)

    def _piece(self, piece: Piece, dim: int, index: int) -> tuple[Tensor, Tensor | None]:
        module, start, stop = piece.module.format(i=index), piece.start, piece.stop
        weight = self.tensor(module + ".weight", start, stop, 1 - dim if self.architecture.transposed else dim)
        if self.architecture.transposed:
            weight = weight.t()
        if not self.live:
            weight = weight.contiguous()
        return weight, self._bias(piece, dim, index)

    def _bias(self, piece: Piece, dim: int, index: int) -> Tensor | None:
        name = piece.module.format(i=index) + ".bias"
        if self.full_name(name) not in self.weights or (dim == 1 and not self.shard.first):
            return None  # of a sum over processes one must hold it
        return self.tensor(name, *((piece.start, piece.stop) if dim == 0 else ()))

    def _stored(self, pieces: Sequence[Piece], dim: int, index: int) -> StoredRows | None:
        """The pieces as rows that are read later; None where they are columns of what is stored."""
        names = [self.full_name(piece.module.format(i=index) + ".weight") for piece in pieces]
        if dim == 0 and not self.architecture.transposed:
            parts = [(name, piece.start, piece.stop) for name, piece in zip(names, pieces, strict=True)]
            return StoredRows(self.weights, self.dtype, parts)
        whole = len(pieces) == 1 and (pieces[0].start, pieces[0].stop) == (0, self.weights.shape(names[0])[1])
        return (
            StoredRows(self.weights, self.dtype, [(names[0], 0, None)])
            if whole and not self.architecture.transposed
            else None
        )

    def tensor(self, name: str, start: int = 0, stop: int | None = None, dim: int = 0) -> Tensor:
        """A tensor by its name without prefix, in the decoder's dtype."""
        return self._convert(self.weights.read(self.full_name(name), dim, start, stop))

    def full_name(self, name: str) -> str:
        """A tensor's name in the weights."""
        prefixed = self.architecture.prefix + name
        return prefixed if prefixed in self.weights else name  # files of models without a head have no prefix

    def _convert(self, tensor: Tensor) -> Tensor:
        return tensor if self.live else tensor.to(self.device, self.dtype)
