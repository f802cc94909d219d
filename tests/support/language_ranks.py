"""What each of two processes does in `test_language.py`."""

from functools import partial
from pathlib import Path

from alignlab.data.language.batches import TokenStore, token_batch
from alignlab.data.language.rendering import Rendered
from alignlab.losses.language_modelling import next_token_loss, token_log_probs
from alignlab.models.language.new import llama
from alignlab.models.language.trunk import head_of, hidden_states
from alignlab.types.language import LanguageVocabulary

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

WORDS = LanguageVocabulary(size=30, pad_id=0, bos_id=1, eos_id=2)


class Losses(torch.nn.Module):
    """The forward pass of SFT as one module, for DDP."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        build = partial(llama, width=16, depth=1, heads=2, context_length=32)
        self.net = build(vocabulary=WORDS).double()

    def forward(self, batch) -> torch.Tensor:
        hidden = hidden_states(self.net, batch.ids).flatten(0, 1)
        log_probs = token_log_probs(hidden[batch.target - 1], head_of(self.net), batch.ids.flatten()[batch.target])
        return next_token_loss(log_probs)


def gradients(ranks: int, rank: int) -> dict[str, torch.Tensor]:
    """Loss and gradient of this rank's part of texts of very unequal lengths, averaged over ranks by DDP."""
    g = torch.Generator().manual_seed(1)
    rendered = [
        Rendered(torch.randint(3, 30, (n,), generator=g).tolist(), [i > 0 for i in range(n)]) for n in (20, 17, 3, 2)
    ]
    rows = [[i] for i in range(4)][rank * 4 // ranks : (rank + 1) * 4 // ranks]
    module = Losses()
    wrapped = DistributedDataParallel(module) if ranks > 1 else module
    loss = wrapped(token_batch(TokenStore(rendered), rows))
    loss.backward()
    value = loss.detach().clone()
    if ranks > 1:
        dist.all_reduce(value)
    return {"loss": value / ranks, **{n: p.grad for n, p in module.named_parameters()}}


def start(rank: int, ranks: int, folder: Path) -> None:
    """Entry point of one process."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    torch.save(gradients(ranks, rank), folder / f"{rank}.pt")
    dist.destroy_process_group()
