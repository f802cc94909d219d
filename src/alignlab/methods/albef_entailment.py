"""Visual entailment with an ALBEF (arXiv:2107.07651, sec. 4): does a sentence follow from a picture?"""

from collections.abc import Callable

from alignlab.methods.parts.classifying import ClassifierMethod
from alignlab.models.albef import Albef
from alignlab.models.tasks.albef import FusedClassifier


def entailment_net(albef: Albef, classes: int) -> FusedClassifier:
    """The surgery: text and fusion layers read sentence and picture, a new head judges by the fused [CLS]."""
    return FusedClassifier(albef, classes)


class AlbefEntailmentMethod(ClassifierMethod):
    """Trains `entailment_net` on labels, and on the opinion of its momentum twin.

    Args:
        net: builds the `Albef` that is operated on; see `DistilledMethod` for the rest.
        classes: contradiction, neutral, entailment.
    """

    def __init__(self, net: Callable[..., Albef], *, classes: int = 3, **settings) -> None:
        super().__init__(lambda vocab_size: entailment_net(net(vocab_size=vocab_size), classes), **settings)
