"""Solved examples that show their reasoning (arXiv:2201.11903)."""

from alignlab.prompting.demonstrations import Demonstration
from alignlab.prompting.few_shot import FewShot


class ChainOfThought(FewShot):
    """Demonstrations answer with `<reasoning> The answer is <answer>.`; what the reply says after
    these words is read.
    """

    needs_reasoning = True

    def shown(self, one: Demonstration) -> str:
        return f"{one.reasoning} The answer is {one.answer}."
