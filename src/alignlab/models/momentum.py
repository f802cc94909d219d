"""A momentum teacher and the queues of its features (arXiv:1911.05722; arXiv:2107.07651, sec. 3.3).

Legend: B batch over all ranks, D joint embedding, K queue.
"""

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alignlab.distributed.shards import after_update, local_shards


class MomentumTwin(nn.Module):
    """An exponential moving average of a module: teacher <- m * teacher + (1 - m) * student."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.teacher = copy.deepcopy(student).requires_grad_(False)

    @torch.no_grad()
    def update(self, student: nn.Module, momentum: float) -> None:
        """Move the teacher towards the student in place, with one kernel launch for all tensors of a kind.

        Each rank moves what it stores. Call it between steps: within one, a sharded parameter is a copy that nobody
        keeps.
        """
        teacher, student = (local_shards(part.parameters()) for part in (self.teacher, student))
        torch._foreach_lerp_(teacher, student, 1.0 - momentum)
        after_update(self.teacher.parameters())


class QueueState(NamedTuple):
    """What a loss reads of the queues."""

    image: Tensor  # (K, D)
    text: Tensor  # (K, D)
    image_id: Tensor  # (K,) int64, -1 where nothing was pushed yet
    text_id: Tensor  # (K,) int64, -1 where nothing was pushed yet


class FeatureQueue(nn.Module):
    """Ring buffer of the teacher's last K image and text features with the ids of their pictures and captions.

    Starts with random unit vectors as the reference does. A batch that does not divide K wraps around; the pointer is
    a tensor on the queue's device, so that a push never waits for it.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"queue_size={size}: a queue holds at least one feature")
        self.size = size
        self.register_buffer("image", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("text", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("image_id", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("text_id", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("pointer", torch.zeros(1, dtype=torch.int64))

    def state(self) -> QueueState:
        """The queues as they are; a push changes them in place, so use this before pushing."""
        return QueueState(self.image, self.text, self.image_id, self.text_id)

    @torch.no_grad()
    def push(self, image: Tensor, text: Tensor, image_id: Tensor, text_id: Tensor) -> None:
        """Overwrite the oldest entries by B new ones: (B, D), (B, D), (B,), (B,). Of more than K the last K stay."""
        count = len(image)
        kept = slice(max(0, count - self.size), count)
        slots = (self.pointer + torch.arange(kept.start, count, device=self.image.device)) % self.size
        for buffer, new in ((self.image, image), (self.text, text), (self.image_id, image_id), (self.text_id, text_id)):
            buffer.index_copy_(0, slots, new[kept].to(buffer.dtype))
        self.pointer.add_(count).remainder_(self.size)
