"""Callbacks of Lightning: what happens around the steps of training."""

import alignlab.torchvision_ops  # noqa: F401  before lightning
