"""Own pictures come at the size of the net unless a size is asked for."""

from collections.abc import Callable

import pytest
from omegaconf import DictConfig


@pytest.mark.parametrize(
    ("words", "size"),
    [
        (("model=clip", "data=image_text"), 48),
        (("model=albef", "data=image_text"), 48),
        (("model=albef", "data=coco"), 48),
        (("model=clip", "data=image_text", "model/net=clip_vit_b32"), 224),
        (("model=albef", "model/net=albef_vit_b16", "data=flickr30k"), 256),
        (("model=clip", "data=image_text", "data.image_size=96"), 96),
    ],
)
def test_the_size_follows_the_net(composed: Callable[..., DictConfig], words: tuple[str, ...], size: int) -> None:
    assert composed(*words, "data.annotations=x").data.image_size == size
