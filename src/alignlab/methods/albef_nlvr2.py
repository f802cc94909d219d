"""Sentences about two pictures with an ALBEF (arXiv:2107.07651, sec. 4, NLVR2): is what it says true?"""

from collections.abc import Callable

from alignlab.methods.parts.classifying import ClassifierMethod
from alignlab.models.albef import Albef
from alignlab.models.tasks.albef import PairClassifier


def nlvr2_net(albef: Albef, classes: int) -> PairClassifier:
    """The surgery: every fusion layer twice, for either picture, with shared keys and values; a new head judges."""
    return PairClassifier(albef, classes)


class AlbefNlvr2Method(ClassifierMethod):
    """Trains `nlvr2_net` on labels, and on the opinion of its momentum twin.

    Args:
        net: builds the `Albef` that is operated on; see `DistilledMethod` for the rest.
        classes: false and true; 3 for text assignment, the pre-training that comes before: the text belongs to the
            first picture, the second, or neither.
    """

    pictures = 2

    def __init__(self, net: Callable[..., Albef], *, classes: int = 2, **settings) -> None:
        super().__init__(lambda vocab_size: nlvr2_net(net(vocab_size=vocab_size), classes), **settings)
