"""What each of two processes does in `test_albef.py`."""

from functools import partial
from pathlib import Path

from alignlab.distributed.collectives import reduce_mean
from alignlab.methods.albef import AlbefMethod
from alignlab.models.albef import Albef, AlbefEncoder
from alignlab.models.vision import vision_transformer
from alignlab.types.pairs import PairBatch, Vocabulary

import torch
import torch.distributed as dist

PAIRS = 8


def contrast(ranks: int, rank: int) -> dict[str, torch.Tensor]:
    """ITC of this rank's part of a fixed batch: loss and gradients averaged over ranks, and the queues after a step."""
    torch.manual_seed(0)
    vision = partial(vision_transformer, image_size=16, patch_size=8, width=16, depth=1, heads=2)
    sizes = {"text_width": 16, "heads": 2, "text_layers": 1, "fusion_layers": 1, "max_positions": 8, "embed_dim": 8}
    encoder = partial(AlbefEncoder, vision, dropout=0.0, attention_dropout=0.0, **sizes)
    words = Vocabulary(size=20, pad_id=0, cls_id=1, sep_id=2, mask_id=3)
    method = AlbefMethod(partial(Albef, encoder), vocabulary=words, queue_size=20)
    with torch.no_grad():  # a teacher of its own
        for parameter in method.twin.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    image, ids = torch.randn(PAIRS, 3, 16, 16), torch.randint(4, 20, (PAIRS, 5))
    image_id = torch.tensor([0, 1, 2, 3, 0, 4, 5, 6])  # the same picture on both ranks
    whole = PairBatch(image, ids, torch.ones(PAIRS, 5, dtype=torch.bool), image_id, torch.arange(PAIRS))
    part = slice(rank * PAIRS // ranks, (rank + 1) * PAIRS // ranks)
    output = method.losses(PairBatch(*(x[part] for x in whole[:5])), 0.4, fuse=False)
    output.losses["loss"].backward()
    method.after_backward((output.keys, False))
    found = {name: reduce_mean(p.grad) for name, p in method.net.named_parameters() if p.grad is not None}
    return {"loss": reduce_mean(output.losses["loss"].detach()), **found, **dict(method.queue.named_buffers())}


def start(rank: int, ranks: int, folder: Path) -> None:
    """Entry of a process."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    torch.set_num_threads(1)
    torch.save(contrast(ranks, rank), folder / f"{rank}.pt")
    dist.destroy_process_group()
