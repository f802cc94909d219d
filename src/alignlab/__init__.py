"""Alignment of vision with language and of language models with people; `train.py` and `infer.py` are the programs."""

import sys

from alignlab.launch.torchvision_ops import BeforeTorchvision

sys.meta_path.insert(0, BeforeTorchvision())
