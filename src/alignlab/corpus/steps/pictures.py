"""Pictures of captions: missing, broken, tiny, duplicated; captions that stand at many pictures.

D documents of a batch.
"""

import io
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np
from PIL import Image

from alignlab.corpus.documents import Batch, Document, Verdict
from alignlab.data.image_text.picture_cache import read_picture
from alignlab.data.pictures.members import Member
from alignlab.data.recipes.pictures import WHOLE

BITS = 3  # of 64 by which two look-alikes differ at most
NOISE = 4  # of 255: a difference that compression makes in an even area
TINT = 8  # of 255, by which the mean colours of a 4 x 4 grid differ on average at most


class Pictures:
    """Drops rows whose picture isn't there, can't be decoded, is tiny or a strip; rows with another file of the same
    picture, or of one that looks like it; and rows whose caption stands at more than `max_pictures` pictures.

    Look-alikes have difference hashes of 8 x 8 that differ in at most 3 bits, and much the same colours. Rows that name
    the same file aren't duplicates: a picture may have several captions. Addresses (`https://...`) aren't looked at.

    Args:
        folder: where relative paths start; None: the folder of the list.
        min_side: pixels of the shorter side.
        max_aspect: the longer side over the shorter.
        look_alikes: whether these are duplicates; else only equal files are.
        max_pictures: of one caption; None: any number.

    Raises:
        ValueError: the folder isn't there, or a number below 1.
    """

    name = "pictures"

    def __init__(
        self,
        folder: str | None = None,
        min_side: int = 16,
        max_aspect: float = 8,
        look_alikes: bool = True,
        max_pictures: int | None = 20,
    ) -> None:
        if folder is not None and not Path(folder).expanduser().is_dir():
            raise ValueError(f"folder is {folder}, which is no folder")
        for key, value in (("min_side", min_side), ("max_aspect", max_aspect), ("max_pictures", max_pictures)):
            if value is not None and value < 1:
                raise ValueError(f"{key} is {value}; it must be at least 1")
        self._folder = None if folder is None else Path(folder).expanduser()
        self._least, self._aspect = min_side, max_aspect
        self.look_alikes, self.max_pictures = look_alikes, max_pictures

    def __call__(self, batch: Batch) -> Iterator[tuple[int, Verdict]]:
        count = len(batch.documents)
        # (D,) of the file's name, its bytes, the caption; (D,) difference hash; (D, 48) colours
        keys, look, tint = np.zeros((count, 3), np.uint64), np.zeros(count, np.uint64), np.zeros((count, 48), np.uint8)
        self._found = {"pictures": keys, "pictures_look": look, "pictures_tint": tint}
        seen: dict[str, tuple[Verdict | None, int, int, np.ndarray]] = {}
        for number, document in batch.living():
            if (place := place_of(document, self._folder or batch.folder)) is None:
                continue
            if document.group not in seen:
                seen[document.group] = self._seen(place)
            verdict, content, hashed, colours = seen[document.group]
            if verdict is not None:
                yield number, verdict
                continue
            caption = " ".join(batch.texts[number].lower().split())
            keys[number] = _hash(str(place).encode()), content, _hash(caption.encode(errors="surrogatepass"))
            look[number], tint[number] = hashed, colours

    def columns(self, batch: Batch) -> dict[str, np.ndarray]:
        """What duplicates are told by; asked for after the call."""
        return self._found

    def _seen(self, place: Path | Member) -> tuple[Verdict | None, int, int, np.ndarray]:
        nothing = (0, 0, np.zeros(48, np.uint8))
        if isinstance(place, Path) and not place.is_file():
            return Verdict("no picture", {"picture": str(place)}), *nothing
        try:
            content = place.read_bytes()
            with Image.open(io.BytesIO(content)) as opened:
                frames = getattr(opened, "n_frames", 1)
            picture = read_picture(place, WHOLE)
        except (ValueError, OSError) as error:
            return Verdict("broken picture", {"picture": str(place), "found": str(error)}), *nothing
        short, long = sorted(picture.size)
        if short < self._least:
            return Verdict("tiny picture", {"size": list(picture.size), "limit": self._least}), *nothing
        if long > self._aspect * short:
            return Verdict("strip", {"size": list(picture.size), "limit": self._aspect}), *nothing
        if frames > 1:
            return Verdict("moving picture", {"frames": frames}), *nothing
        return None, _hash(content), difference_hash(picture), _colours(picture)


def place_of(document: Document, folder: Path) -> Path | Member | None:
    """Where a document's picture lies; None for none, and for an address (`https://...`)."""
    if document.picture is not None:
        return document.picture
    return folder / document.group if document.group and "://" not in document.group else None


def difference_hash(picture: Image.Image) -> int:
    """64 bits: whether each of 8 x 8 places is clearly brighter than the one right of it."""
    grey = np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    return int(np.packbits(grey[:, :-1] > grey[:, 1:] + NOISE).view(">u8")[0])


def _colours(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.resize((4, 4), Image.Resampling.BOX), np.uint8).reshape(-1)


def _hash(content: bytes) -> int:
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little")


def look_alikes(look: np.ndarray, tint: np.ndarray, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of documents, earlier and later, whose pictures look alike.

    Hashes that differ in at most 3 of 64 bits share one of four stretches of 16 bits; among those that do, each is
    compared with the four next to it in the order of hashes.
    """
    found: list[np.ndarray] = []
    for stretch in range(4):
        keys = (look[documents] >> np.uint64(16 * stretch)) & np.uint64(0xFFFF)
        ordered = documents[np.lexsort((look[documents], keys))]
        parts = np.sort(keys)
        for apart in range(1, 5):
            left, right = ordered[:-apart], ordered[apart:]
            same = parts[:-apart] == parts[apart:]
            found.append(np.stack([left[same], right[same]], 1))
    pairs = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
    bits = np.bitwise_count(look[pairs[:, 0]] ^ look[pairs[:, 1]])
    apart = np.abs(tint[pairs[:, 0]].astype(np.int16) - tint[pairs[:, 1]]).mean(1)
    good = (bits <= BITS) & (apart <= TINT)
    return pairs[good, 0], pairs[good, 1]
