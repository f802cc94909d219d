"""The table of a + b modulo a prime, of which a part is learned: where grokking was found (arXiv:2201.02177)."""

import numpy as np
from transformers import PreTrainedTokenizerBase

from alignlab.data.language.batches import Split, TextRows
from alignlab.data.language.pretraining.own_tokenizer import symbols_tokenizer
from alignlab.data.language.pretraining.symbol_rows import Item, symbol_rows
from alignlab.data.language.rendering import Renderer


class ModularAddition:
    """Rows `a b =` with the one token `(a + b) % modulus` to predict; a number is a token.

    Args:
        modulus: of the table, which has its square as many rows.
        split_seed: draws which rows are held out.
        val_share: how many of them are.

    Raises:
        ValueError: a modulus below 2.
    """

    def __init__(self, *, modulus: int = 59, split_seed: int, val_share: float) -> None:
        if modulus < 2:
            raise ValueError(f"modulus is {modulus}; it must be at least 2")
        self.modulus, self._split_seed, self._val_share = modulus, split_seed, val_share

    def tokenizer(self, vocab_size: int) -> PreTrainedTokenizerBase:
        """A token for each number, and one for `=`."""
        return symbols_tokenizer([*map(str, range(self.modulus)), "="], r"\d+|=")

    def rows(self, split: Split, renderer: Renderer, seed: int) -> TextRows:
        p = self.modulus
        order = np.random.default_rng(self._split_seed).permutation(p * p)
        border = round(p * p * self._val_share)
        chosen = np.sort(order[:border] if split == "val" else order[border:])
        tokenizer = renderer.tokenizer
        items = [Item(f"{n // p}+{n % p}", "modular", f"{n // p}+{n % p}=", str((n // p + n % p) % p)) for n in chosen]
        return symbol_rows(items, tokenizer, seed, ends=False)
