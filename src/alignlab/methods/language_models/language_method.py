"""What methods on language models share: the net with its adapter, and its export."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from alignlab.methods.language_models.by_source import BySource
from alignlab.methods.language_models.export import build_net, export_model
from alignlab.methods.method import Method
from alignlab.types.language import LanguageVocabulary


class LanguageMethod(Method):
    """Trains a causal language model.

    Args:
        net: builds the model, `net(vocabulary=...)`.
        vocabulary: of the data.
        peft: adds an adapter, `peft(net)`; None trains everything.
    """

    def __init__(
        self,
        net: Callable[..., nn.Module],
        *,
        vocabulary: LanguageVocabulary,
        peft: Callable[..., nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.net = build_net(net, peft, vocabulary)
        self._validated: list[Tensor] = []
        self._by_source = BySource()

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        """Writes model or adapter in Hugging Face's format; the tokenizer is the callback's business."""
        export_model(self.net, folder)
