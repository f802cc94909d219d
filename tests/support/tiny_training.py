"""Batches of random pairs, for tests of two-tower systems."""

from collections.abc import Callable
from functools import partial

from alignlab.methods.albef import AlbefMethod
from alignlab.methods.clip import ClipMethod
from alignlab.systems.choosing import system_of
from alignlab.systems.method_system import MethodSystem
from alignlab.types.pairs import Foils, PairBatch, Sentences, Vocabulary

import torch
from torch import nn

WORDS = Vocabulary(size=40, pad_id=0, cls_id=1, sep_id=2, mask_id=3)


def pairs(size: int = 8, seed: int = 0, dtype: torch.dtype = torch.float32) -> PairBatch:
    """Pictures of 16 x 16, texts of 3 to 7 tokens."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.arange(7) < torch.randint(3, 8, (size, 1), generator=g)
    ids = torch.randint(4, WORDS.size, (size, 7), generator=g).masked_fill(~mask, WORDS.pad_id)
    index = torch.arange(size) + 100 * seed
    return PairBatch(torch.randn(size, 3, 16, 16, generator=g).to(dtype), ids, mask, index, index)


def told(batch: PairBatch, sentences: int = 2, foils: int = 2) -> PairBatch:
    """With short sentences, of which the first picture has one less, and with foils, of which the last lacks one."""
    (size, length), g = batch.ids.shape, torch.Generator().manual_seed(int(batch.image_id[0]) + 5)
    ids = torch.randint(4, WORDS.size, (size, sentences, 5), generator=g)
    valid, there = torch.ones(size, sentences, dtype=torch.bool), torch.ones(size, foils, dtype=torch.bool)
    valid[0, 1] = there[-1, 0] = False
    telling = nn.functional.one_hot(torch.randint(1, 5, (size, sentences), generator=g), 5).bool()
    false = torch.randint(4, WORDS.size, (size, foils, length), generator=g)
    return batch._replace(
        sentences=Sentences(ids, torch.ones_like(telling), telling & valid[..., None], valid),
        foils=Foils(false, batch.mask[:, None].expand(-1, foils, -1), there),
    )


def albef_system(net: Callable, optim: Callable | None, vocabulary: Vocabulary = WORDS, **settings) -> MethodSystem:
    """A system that runs ALBEF."""
    return system_of(partial(AlbefMethod, net, **settings), vocabulary=vocabulary, optim=optim)


def clip_system(
    net: Callable, loss: nn.Module, optim: Callable | None, vocabulary: Vocabulary = WORDS, **settings
) -> MethodSystem:
    """A system that runs CLIP."""
    return system_of(partial(ClipMethod, net, loss, **settings), vocabulary=vocabulary, optim=optim)
