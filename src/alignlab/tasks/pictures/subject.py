"""A trained vision-language model and how pictures and texts become its vectors.

Legend: M pictures, N texts, T tokens, S image tokens, D joint embedding, W width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignlab.evaluation.encoding import crop_padding
from alignlab.types.pairs import ImageEncoding, TextEncoding

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"))


@dataclass(frozen=True)
class VisionLanguage:
    """System and data module of a run directory, in eval mode."""

    system: Any
    datamodule: Any
    run_dir: Path
    batch_size: int = 8

    @property
    def matches(self) -> bool:
        """Whether there is a head that looks at picture and text together."""
        return hasattr(self.system.net, "match")

    def encode_texts(self, texts: Sequence[str]) -> tuple[TextEncoding, Tensor, Tensor]:
        """Encoding of N texts, their ids (N, T) and mask (N, T); all at once, so meant for queries."""
        ids, mask = crop_padding(*self.datamodule.encode_texts(list(texts)))
        with torch.no_grad():
            return self.system.encode_text(ids, mask), ids, mask

    def encode_pictures(self, paths: Sequence[Path]) -> ImageEncoding:
        """Encoding of M pictures, read and resized as in the validation of a training; ValueError
        names a broken file.
        """
        with torch.no_grad():
            return self.system.encode_image(self.datamodule.normalise(torch.stack([self.pixels(p) for p in paths])))

    def picture_batches(self, paths: Sequence[Path]) -> Iterator[tuple[list[Path], Tensor, dict[Path, str]]]:
        """Readable pictures of each batch with their features (m, D), and what is wrong with the others."""
        for start in range(0, len(paths), self.batch_size):
            good, pixels, errors = [], [], {}
            for path in paths[start : start + self.batch_size]:
                try:
                    pixels.append(self.pixels(path))
                    good.append(path)
                except ValueError as error:
                    errors[path] = str(error)
            with torch.no_grad():
                image = self.datamodule.normalise(torch.stack(pixels)) if pixels else None
                features = self.system.encode_image(image).features.float() if pixels else torch.zeros(0, 0)
            yield good, features, errors

    def pixels(self, path: Path) -> Tensor:
        """(3, H, W) uint8 at the model's size."""
        return self.datamodule.pixels(path)

    def probabilities(self, similarity: Tensor) -> Tensor:
        """Softmax over the last dimension at the model's own temperature."""
        return (self.system.net.scale.detach().float() * similarity.float()).softmax(-1)


def find_pictures(place: str, key: str = "pictures") -> list[Path]:
    """A picture file, or all in a folder and below it, sorted.

    Raises ValueError where there is none.
    """
    root = Path(place).expanduser()
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise ValueError(f"{key}={place}: there is no such file or folder")
    pictures = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not pictures:
        raise ValueError(f"{key}={place}: there is no picture below this folder ({', '.join(sorted(SUFFIXES))})")
    return pictures


def is_picture(text: str) -> bool:
    """Whether a query names a picture file rather than being a text: it ends as such, and is there or has no space."""
    path = Path(text).expanduser()
    return path.suffix.lower() in SUFFIXES and (path.is_file() or not any(map(str.isspace, text)))
