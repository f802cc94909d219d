"""Entailment with a CLIP: does a sentence follow from a picture? By one vector for each; see `albef_entailment`."""

from collections.abc import Callable

from alignlab.methods.parts.classifying import ClassifierMethod
from alignlab.methods.parts.distilled import FROM_CLIP
from alignlab.models.clip import Clip
from alignlab.models.tasks.clip import ComparingClassifier


class ClipEntailmentMethod(ClassifierMethod):
    """Trains a head on a CLIP's two vectors, and the CLIP with it, as ALBEF's fusion is trained: on labels, and on the
    opinion of a momentum twin.

    Args:
        net: builds the `Clip`; see `DistilledMethod` for the rest.
        classes: contradiction, neutral, entailment; with two pictures false and true.
        pictures: that a sentence is about, 1 or 2.
    """

    renames = FROM_CLIP

    def __init__(self, net: Callable[..., Clip], *, classes: int = 3, pictures: int = 1, **settings) -> None:
        super().__init__(
            lambda vocab_size: ComparingClassifier(net(vocab_size=vocab_size), classes, pictures), **settings
        )
