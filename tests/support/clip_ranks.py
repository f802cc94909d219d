"""What each of two processes does in `test_clip.py`."""

from functools import partial
from pathlib import Path

from alignlab.losses.contrastive import InfoNce, PairIds, SigLip
from alignlab.models.clip import Clip
from alignlab.models.text import TextTower
from alignlab.models.vision import vision_transformer

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

PAIRS = 8
LOSSES = {
    "info_nce": InfoNce(),
    "info_nce of all rows": InfoNce(local_loss=False),
    "info_nce masked": InfoNce(duplicates="masked"),
    "siglip": SigLip(chunk_size=3),
    "siglip masked": SigLip(duplicates="masked"),
}


def gradients(ranks: int, rank: int) -> dict[str, dict[str, torch.Tensor]]:
    """Loss and gradient of this rank's part of a fixed batch, averaged over ranks by DDP."""
    g = torch.Generator().manual_seed(1)
    image, ids = torch.randn(PAIRS, 3, 16, 16, generator=g), torch.randint(1, 20, (PAIRS, 5), generator=g)
    same = PairIds(torch.tensor([0, 1, 2, 3, 0, 4, 5, 6]), torch.tensor([0, 1, 2, 2, 3, 1, 4, 5]))  # also across ranks
    part = slice(rank * PAIRS // ranks, (rank + 1) * PAIRS // ranks)
    result = {}
    for name, loss in LOSSES.items():
        torch.manual_seed(0)
        vision = partial(vision_transformer, image_size=16, patch_size=8, width=16, depth=2, heads=2)
        text = partial(TextTower, context_length=5, width=16, depth=2, heads=2)
        net = Clip(vision, text, vocab_size=20, embed_dim=8, logit_bias=-1.0 if "siglip" in name else None).double()
        wrapped = DistributedDataParallel(net) if ranks > 1 else net
        pairs = wrapped(image[part].double(), ids[part], torch.ones_like(ids[part], dtype=torch.bool))
        value = loss(*pairs, ids=PairIds(same.image[part], same.text[part]))
        value.backward()
        value = value.detach().clone()
        if ranks > 1:
            dist.all_reduce(value)
        result[name] = {"loss": value / ranks, **{n: p.grad for n, p in net.named_parameters()}}
    return result


def start(rank: int, ranks: int, folder: Path) -> None:
    """Entry point of one process."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    torch.save(gradients(ranks, rank), folder / f"{rank}.pt")
    dist.destroy_process_group()
