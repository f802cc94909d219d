"""What the pretend device must notice, as functions that a job calls."""

from collections.abc import Callable
from pathlib import Path

from pretend_cuda.device import entered
from pretend_cuda.log import phase

import torch


def noticed(folder: Path) -> None:
    """Does everything of `CASES`, each in a phase of its name."""
    with entered():
        for name, case in CASES.items():
            x, index = torch.arange(6.0, device="cuda"), torch.tensor([0, 2]).to("cuda", non_blocking=True)
            with phase(name):
                case(x, index)


def gradients(folder: Path) -> list[list[float]]:
    """Gradient of a small net under autocast, on the device and on the CPU: the kernels are the CPU's on both."""
    found = []
    for device in ("cuda", "cpu"):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 1))
        x = torch.randn(3, 4)
        with entered():
            net, x = net.to(device), x.to(device)
            with torch.autocast(device, torch.bfloat16):
                loss = net(x).float().square().sum()
            loss.backward()
            gradient = net[0].weight.grad.to("cpu")
        found.append(gradient.flatten().tolist())
    return found


def _copied_and_read(x: torch.Tensor, wait: bool) -> None:
    host = x.to("cpu", non_blocking=True)
    if wait:
        torch.cuda.synchronize()
    host.sum()


def _into(x: torch.Tensor, pinned: bool) -> None:
    torch.empty(6, pin_memory=pinned).copy_(x, non_blocking=True)


def _attention(x: torch.Tensor, dtype: torch.dtype) -> None:
    q = x.view(1, 1, 3, 2)
    torch.nn.functional.scaled_dot_product_attention(q, q, q.to(dtype))


def _attempted(case: Callable[[], object]) -> None:
    try:
        case()
    except RuntimeError:  # the CPU refuses it as well
        pass


CASES: dict[str, Callable] = {
    "nothing": lambda x, i: (x * 2 + 1).sum() + x[i].sum() + x.index_select(0, i).sum(),
    "item": lambda x, i: x.sum().item(),
    "truth": lambda x, i: bool((x > 0).all()),
    "list": lambda x, i: x.tolist(),
    "places": lambda x, i: (x > 2).nonzero(),
    "mask as index": lambda x, i: x[x > 2],
    "list as index": lambda x, i: x[[0, 2]],
    "copy to host": lambda x, i: x.cpu(),
    "into pageable memory": lambda x, i: _into(x, pinned=False),
    "into pinned memory": lambda x, i: _into(x, pinned=True),
    "made from numbers": lambda x, i: torch.tensor([1.0, 2.0], device="cuda"),
    "handed over": lambda x, i: torch.ones(3).to("cuda", non_blocking=True),
    "filled": lambda x, i: torch.full((), 0.5, device="cuda"),
    "host operand": lambda x, i: x + torch.ones(6),
    "host scalar": lambda x, i: x + torch.ones(()),
    "dtypes of a copy": lambda x, i: _attempted(lambda: x.index_copy(0, i, x[:2].bfloat16())),
    "dtypes of attention": lambda x, i: _attempted(lambda: _attention(x, torch.bfloat16)),
    "attention": lambda x, i: _attention(x, torch.float32),
    "collective": lambda x, i: __import__("alignlab.distributed.collectives").distributed.collectives.reduce_sum(
        torch.ones(2)
    ),
    "read too early": lambda x, i: _copied_and_read(x, wait=False),
    "read in time": lambda x, i: _copied_and_read(x, wait=True),
}


def host_copies(folder: Path) -> dict[str, object]:
    """Tied and other tensors copied together: what came, and whether ties were kept."""
    from alignlab.callbacks.keeping.host_copies import host_copies

    with entered():
        x, y = torch.arange(4.0, device="cuda"), torch.ones(2, device="cuda")
        with phase("copies"):
            found = host_copies({"x": x, "again": [x], "y": (y, 1)})
            values = [found["x"].tolist(), found["y"][0].tolist(), found["y"][1]]
    return {"values": values, "tied": found["again"][0] is found["x"], "on": found["x"].device.type}
