"""How a pretrained net wants its inputs: what its own processor does with a picture and a text."""

from typing import Literal, NamedTuple


class PictureRecipe(NamedTuple):
    """From a decoded picture to numbers: resized, perhaps cropped to its middle, (x / 255 - mean) / std."""

    size: int  # pixels of either side
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: Literal["squash", "crop"] = "squash"  # to the square as a whole; or the short side, and the middle of it
    interpolation: Literal["nearest", "lanczos", "bilinear", "bicubic"] = "bicubic"
    middle: Literal["down", "even"] = "down"  # where half a pixel of the middle goes: transformers', torchvision's


class TextRecipe(NamedTuple):
    """From ids of a text's own words to a row of ids."""

    context_length: int  # the most ids of a row
    begin: tuple[int, ...]
    end: tuple[int, ...]
    pad_id: int
    whole: bool = False  # every row has context_length ids, and padding is read as words are
    left: bool = False  # padding stands on the left
    cleaning: Literal["none", "lower", "canonical"] = (
        "none"  # before the tokenizer, see `alignlab.data.image_text.cleaning`
    )
