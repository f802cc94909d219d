"""What settings of data may not say beside a released net, which says it itself."""

from collections.abc import Sequence

from alignlab.models.released.source import Released


def refuse_contradictions(
    net: Released,
    image_size: int | None,
    context_length: int | None,
    append_sep: bool,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> None:
    """Raises ValueError, one line, for the first setting that is another than the net's own."""
    sizes, own = net.sizes, net.picture
    for key, value, wanted in (("mean", mean, own.mean), ("std", std, own.std)):
        if value is not None and tuple(value) != tuple(wanted):
            raise ValueError(f"{key} is {list(value)}; {net.path} was trained with {list(wanted)}: leave it out")
    if append_sep:
        raise ValueError(f"append_sep=true: {net.path} says itself how a text ends; leave it out")
    if image_size is not None and image_size % sizes.patch_size:
        raise ValueError(
            f"image_size is {image_size}; {net.path} has patches of {sizes.patch_size} pixels and was trained at "
            f"{sizes.image_size}: take a multiple, or leave it out"
        )
    if context_length is not None and (
        context_length > sizes.context_length or (sizes.siglip and context_length != sizes.context_length)
    ):
        reason = "reads padding like words" if sizes.siglip else "has no positions beyond"
        raise ValueError(
            f"context_length is {context_length}; {net.path} {reason}: take {sizes.context_length}, or leave it out"
        )
