"""Sums of numbers of some digits, written out digit by digit: a task whose answers have several tokens."""

from functools import cached_property

import numpy as np
from transformers import PreTrainedTokenizerBase

from alignlab.data.language.batches import Split, TextRows
from alignlab.data.language.pretraining.own_tokenizer import symbols_tokenizer
from alignlab.data.language.pretraining.symbol_rows import Item, symbol_rows
from alignlab.data.language.rated_reviews import in_validation
from alignlab.data.language.rendering import Renderer


class DecimalAddition:
    """Rows `a+b=` with the sum to predict; a digit is a token, and each number has its leading zeros.

    Args:
        digits: of the two numbers; the sum has one more.
        examples: rows to train on, drawn without replacement.
        num_items: held-out rows, the same for every net: those that `items` gives.
        reverse: the sum's last digit first, as one adds on paper.
        split_seed: draws the rows.
        val_share: of all sums, those that may be held out, by a hash.

    Raises:
        ValueError: no digits, or more rows than there are sums.
    """

    def __init__(
        self,
        *,
        digits: int = 2,
        examples: int = 4000,
        num_items: int = 500,
        reverse: bool = False,
        split_seed: int,
        val_share: float,
    ) -> None:
        if not 1 <= digits <= 9:
            raise ValueError(f"digits is {digits}; it must be 1 to 9")
        self.digits, self.examples, self.num_items, self.reverse = digits, examples, num_items, reverse
        self._split_seed, self._val_share = split_seed, val_share

    def tokenizer(self, vocab_size: int) -> PreTrainedTokenizerBase:
        """A token for each digit, `+` and `=`."""
        return symbols_tokenizer([*"0123456789", "+", "="])

    @property
    def items(self) -> list[Item]:
        """What is held out, in a fixed order."""
        return self._drawn["val"]

    def rows(self, split: Split, renderer: Renderer, seed: int) -> TextRows:
        return symbol_rows(self._drawn[split], renderer.tokenizer, seed)

    @cached_property
    def _drawn(self) -> dict[str, list[Item]]:
        """Sums drawn at random until both splits have as many as they are to have, none twice."""
        wanted = {"train": self.examples, "val": self.num_items}
        top, rng = 10**self.digits, np.random.default_rng(self._split_seed)
        found: dict[str, dict[tuple[int, int], Item]] = {"train": {}, "val": {}}
        idle, rounds = 0, 8  # so many rounds in a row without a new sum: there are no more
        while idle < rounds:
            before = sum(map(len, found.values()))
            for a, b in rng.integers(0, top, (4096, 2)).tolist():
                name = f"{a}+{b}"
                split = "val" if in_validation(name, self._split_seed, self._val_share) else "train"
                if len(found[split]) < wanted[split]:
                    found[split].setdefault((a, b), self._item(name, a, b))
            if all(len(found[split]) == number for split, number in wanted.items()):
                return {split: list(items.values()) for split, items in found.items()}
            idle = idle + 1 if sum(map(len, found.values())) == before else 0
        raise ValueError(
            f"examples={self.examples} and num_items={self.num_items} are more than there are sums of numbers of "
            f"{self.digits} digits (val_share={self._val_share})"
        )

    def _item(self, name: str, a: int, b: int) -> Item:
        width = self.digits
        total = f"{a + b:0{width + 1}d}"
        prompt = f"{a:0{width}d}+{b:0{width}d}="
        return Item(name, f"addition_{width}_digits", prompt, total[::-1] if self.reverse else total)
