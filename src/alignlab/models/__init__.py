"""Networks in plain torch: towers, two-tower and fused models. `forward` is pure."""

from alignlab import torchvision_ops  # noqa: F401  (before timm, which imports torchvision)
