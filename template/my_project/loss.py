"""A contrastive loss of one's own."""

from torch import Tensor, arange, nn
from torch.nn.functional import cross_entropy


class Smoothed(nn.Module):
    """CLIP's loss with smoothed labels.

    Each key in `conf/model/loss/smoothed.yaml` is a parameter of this constructor, and checked against it.

    Args:
        smoothing: share of the label that goes to all texts of the batch alike.
    """

    def __init__(self, smoothing: float = 0.1) -> None:
        super().__init__()
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing is {smoothing}; it must be at least 0 and below 1")
        self.smoothing = smoothing

    def forward(
        self, image: Tensor, text: Tensor, scale: Tensor, bias: Tensor | None = None, ids=None, gather: bool = True
    ) -> Tensor:
        """Unit vectors (B, D), (B, D) and the temperature (1,) -> a number.

        With several processes each compares its own pairs: see `alignlab.losses.contrastive` for how to gather.
        """
        logits = scale * image @ text.T
        labels = arange(len(image), device=image.device)
        rows, columns = (cross_entropy(x, labels, label_smoothing=self.smoothing) for x in (logits, logits.T))
        return (rows + columns) / 2
