"""Settings of every test process."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # several test processes share few cores

import alignlab.torchvision_ops  # noqa: F401  before anything that imports torchvision
