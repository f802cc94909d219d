"""Built-in data cut down, for runs of seconds."""

from collections.abc import Callable

from alignlab.data.emoji.scene_pairs import EmojiScenePairs
from alignlab.data.image_text.batches import ZeroShotPictures
from alignlab.data.language import movies
from alignlab.data.language.rated_reviews import RatedTexts, rated_reviews

Set = Callable[[object, str, object], None]


def shrink(set_attribute: Set = setattr) -> None:
    """Every fiftieth review; eight classes of a zero-shot problem with eight pictures. `monkeypatch.setattr` takes it back after a test."""
    few = RatedTexts(rated_reviews().texts[::50], rated_reviews().shares[::50])
    set_attribute(movies, "rated_reviews", lambda name="movie_reviews": few)
    pictures = EmojiScenePairs.zero_shot_pictures
    small = lambda self: {name: _first(found, 8) for name, found in pictures(self).items()}  # noqa: E731
    set_attribute(EmojiScenePairs, "zero_shot_pictures", small)


def _first(pictures: ZeroShotPictures, classes: int) -> ZeroShotPictures:
    of = [i for i, label in enumerate(pictures.labels) if label < classes][:classes]
    return ZeroShotPictures(
        pictures.names[:classes],
        pictures.prompts[:classes],
        [pictures.labels[i] for i in of],
        lambda i: pictures.picture(of[i]),
    )
