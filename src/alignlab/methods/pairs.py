"""What methods on pictures with captions share.

Legend: B pictures, N texts, T tokens, D joint embedding.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from alignlab.methods.method import Method
from alignlab.models.block_settings import set_blocks
from alignlab.types.pairs import ImageEncoding, TextEncoding, Vocabulary


class PairMethod(Method):
    """A net with towers for pictures and texts.

    Args:
        net: builds the net, `net(vocab_size=...)`.
        vocabulary: of the tokenizer that made the texts.
        gradient_checkpointing: all towers compute activations again in the backward pass.
        compile: True or arguments of `torch.compile`, for the towers' blocks.

    Attributes:
        rows_of_words: ends of the names of parameters that have a row for each id of the vocabulary. Started from a run
            whose vocabulary has since got more words (`init_from`), they take its rows.
    """

    rows_of_words: tuple[str, ...] = ("embeddings.word.weight", "language_head.bias", "token_embedding.weight")

    def __init__(
        self,
        net: Callable[..., nn.Module],
        *,
        vocabulary: Vocabulary,
        gradient_checkpointing: bool = False,
        compile: bool | dict[str, Any] = False,
    ) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.net = net(vocab_size=vocabulary.size)
        set_blocks(self.net, gradient_checkpointing=gradient_checkpointing, compile=compile)

    def encode_image(self, image: Tensor) -> ImageEncoding:
        """(B, 3, H, W) -> features (B, D), and tokens where the net can fuse them."""
        return self.net.encode_image(image)

    def encode_text(self, ids: Tensor, mask: Tensor) -> TextEncoding:
        """(N, T), (N, T) -> features (N, D), and tokens where the net can fuse them."""
        return self.net.encode_text(ids, mask)
