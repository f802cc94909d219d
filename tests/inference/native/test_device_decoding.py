"""Decoding on the pretend CUDA device: backends use it, give a CPU's tokens, and wait for it once every few tokens."""

from alignlab.inference.native.fixed_decoding import EVERY
from pretend_cuda.process import Found, Job, none, results
from tiny_models import ARCHITECTURES

import pytest

pytestmark = pytest.mark.distributed  # one other process
JOBS = (
    *(Job(kind, call="device_decoding:replies", arguments={"kind": kind}) for kind in ARCHITECTURES),
    Job("loop", call="device_decoding:loop"),
)


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    """What the jobs found, of one process for all of them."""
    return results(JOBS, tmp_path_factory)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_backends_use_the_gpu_and_give_the_tokens_of_a_cpu(found: dict[str, Found], kind: str) -> None:
    assert found[kind].error is None
    none(found[kind].refused())
    assert len(found[kind].value) == 6
    for name, reply in found[kind].value.items():
        assert reply["device"] == "cuda", name
        (tokens, scores), (wanted, wanted_scores) = reply["there"], reply["here"]
        if name != "w8a8":  # rounds activations a little differently in C
            assert tokens == wanted, name
        for one, other in zip(scores, wanted_scores, strict=True):
            assert one == pytest.approx(other, abs=0.3 if name == "w8a8" else 1e-3), name


@pytest.mark.parametrize("kind", ["greedy", "sampled", "filtered"])
def test_the_loop_waits_once_every_few_tokens(found: dict[str, Found], kind: str) -> None:
    assert found["loop"].error is None
    none(found["loop"].refused())
    for length in (9, 41):
        waits = found["loop"].waits(f"{kind} {length}")
        assert sum(row.count for row in waits) == 1 + (length - 1) // EVERY, "\n".join(map(str, waits))
        assert all("devices.py" in row.where for row in waits)


def test_rows_that_leave_wait_for_nothing(found: dict[str, Found]) -> None:
    lengths = found["loop"].value
    assert len(set(lengths)) > 3, "rows end now and then"
    assert sum(row.count for row in found["loop"].waits("leaving")) <= 3 + max(lengths) // EVERY
    assert sum(row.count for row in found["loop"].waits("scores")) == 1
