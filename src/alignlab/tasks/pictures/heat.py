"""Where a net with fusion looks for the words of a text: Grad-CAM of its matching score, a map for each word.

Legend: T tokens, S image tokens.
"""

from typing import Any

from torch import Tensor, nn

from alignlab.evaluation.grounding import grad_cam, mean_heat
from alignlab.evaluation.words import content_words, tokens_of
from alignlab.types.pairs import ImageEncoding, TextEncoding


def word_heats(
    net: nn.Module,
    tokenizer: Any,
    image: ImageEncoding,
    text: tuple[TextEncoding, Tensor, Tensor],
    caption: str,
    layer: int | None = None,
    limit: int | None = None,
) -> dict[str, Tensor]:
    """(rows, cols) of the net's grid for each word of a caption that names something, at most `limit` of them.

    A word that the model's context cut off has none.

    Args:
        net: has `match_with_attention`.
        image: of one picture.
        text: encoding of the caption, its ids (1, T) and mask (1, T).
        layer: fusion layer from 0; None: the net's `pointing_layer`.
    """
    encoded, ids, mask = text
    layer = net.pointing_layer if layer is None else layer
    heat = grad_cam(net, image.tokens, encoded.tokens, mask, layer=layer, grid=net.grid)  # (1, T, rows, cols)
    maps = {}
    for first, end in content_words(caption, limit):
        tokens = tokens_of(tokenizer, caption, (first, end), ids[0].cpu())
        if tokens.any():
            maps[caption[first:end]] = mean_heat(heat, tokens[None].to(heat.device))[0]
    return maps
