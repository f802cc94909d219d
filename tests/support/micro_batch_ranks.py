"""What each of two processes does in `test_micro_batches.py`: CLIP under DDP or FSDP2, in micro-batches or not."""

import os
from functools import partial
from pathlib import Path

from alignlab.losses.contrastive import InfoNce, SigLip
from alignlab.models.clip import Clip
from alignlab.models.text import TextTower
from alignlab.models.vision import vision_transformer
from alignlab.optim.adamw import adamw
from alignlab.strategies.fsdp import Fsdp
from alignlab.strategies.replica import gathered
from alignlab.types.pairs import PairBatch
from recorder import fit
from tiny_training import clip_system, pairs

import torch
from lightning.pytorch.strategies import DDPStrategy

PAIRS, STEPS = 8, 3
# What the two processes do besides micro-batches.
MORE = {"compile": {"backend": "aot_eager"}, "gradient_checkpointing": True}
SETTINGS = {"info_nce": {}, "siglip": {"gradient_checkpointing": True}, "fsdp": {}, "fsdp, more": MORE}


def trained(kind: str, ranks: int, rank: int, **choices) -> dict[str, torch.Tensor]:
    """Weights after some steps of this rank's parts of fixed batches, with clipping and accumulation of two."""
    torch.manual_seed(0)
    vision = partial(vision_transformer, image_size=16, patch_size=8, width=16, depth=1, heads=2)
    text = partial(TextTower, context_length=7, width=16, depth=1, heads=2)
    loss, bias = (SigLip(chunk_size=3), -3.0) if kind == "siglip" else (InfoNce(), None)
    net = partial(Clip, vision, text, embed_dim=8, logit_bias=bias)
    optim = partial(adamw, lr=1e-2, warmup_steps=1, eps=1e-3)  # gradients that are zero stay zero in float32
    system = clip_system(net, loss, optim, **choices)
    part = slice(rank * PAIRS // ranks, (rank + 1) * PAIRS // ranks)
    double = not kind.startswith("fsdp")  # which Lightning shards in float32 at most
    dtype = torch.float64 if double else torch.float32
    batches = [PairBatch(*(x[part] for x in pairs(PAIRS, seed, dtype)[:5])) for seed in range(2)]
    settings = {
        "gradient_clip_val": 0.05,
        "accumulate_grad_batches": 2,
        "precision": "64-true" if double else "32-true",
    }
    if ranks > 1:
        ddp = DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)
        strategy = Fsdp() if kind.startswith("fsdp") else ddp
        settings |= {"devices": ranks, "strategy": strategy, "use_distributed_sampler": False}
    fit(system, STEPS, batches, **settings)
    return {name: gathered(p).detach() for name, p in system.net.named_parameters()}


def start(rank: int, ranks: int, port: int, folder: Path) -> None:
    """Entry point of one process, which Lightning takes for one of torchrun's."""
    torch.set_num_threads(1)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "GROUP_RANK": 0}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    os.environ.update({name: str(value) for name, value in {**place, **address}.items()})
    for kind, choices in SETTINGS.items():
        weights = trained(kind, ranks, rank, micro_batch_size=3, **choices)  # 4 pairs: 3 and 1
        torch.save(weights, folder / f"{kind}{rank}.pt")
