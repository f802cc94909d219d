"""A `Clip` with the weights of a released CLIP or SigLIP."""

from collections.abc import Sequence
from typing import Literal

from alignlab.files.kinds import line_of
from alignlab.models.clip import Clip
from alignlab.models.low_rank import TARGETS, add_low_rank
from alignlab.models.released.sizes import untrained
from alignlab.models.released.source import read_released, weights_of_released


def pretrained_clip(
    path: str,
    *,
    vocab_size: int,
    image_size: int | None = None,
    freeze: Literal["none", "image", "text"] = "none",
    patch_dropout: float = 0.0,
    lora_rank: int | None = None,
    lora_alpha: float = 32.0,
    lora_targets: Sequence[str] = TARGETS,
    weights: bool = True,
) -> Clip:
    """Load a released CLIP or SigLIP: hub id, folder in transformers' or open_clip's format, or file of OpenAI's.

    Args:
        path: where it is.
        vocab_size: of the data's tokenizer, which must be its own.
        image_size: None: its own; another one resizes the position embedding.
        freeze: tower that doesn't learn, see `Clip`.
        patch_dropout: share of the patches left out in training (arXiv:2212.00794).
        lora_rank: of trainable additions to the towers' layers, which are frozen otherwise; the projections learn.
        lora_alpha: their weight is lora_alpha / lora_rank.
        lora_targets: names of the layers.
        weights: False leaves them random, for whoever loads others.

    Raises:
        ValueError: it can't be read, or the data's vocabulary isn't its own.
    """
    released = read_released(path)
    net = untrained(
        released.sizes, vocab_size=vocab_size, image_size=image_size, freeze=freeze, patch_dropout=patch_dropout
    )
    net.released = released
    if weights:
        try:
            net.load_state_dict(weights_of_released(released))
        except RuntimeError as error:
            raise ValueError(
                f"path={path}: its weights are of other sizes than its config ({line_of(error)})"
            ) from error
    if lora_rank is not None:
        towers = [tower for tower in (net.vision, net.text) if tower is not net.frozen]
        add_low_rank(towers, lora_rank, lora_alpha, lora_targets)
    return net
