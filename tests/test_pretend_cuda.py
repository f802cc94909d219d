"""The pretend CUDA device notices what a real one would wait for or refuse, and computes what a CPU does."""

from pretend_cuda.log import BLOCKING, COLLECTIVE, COPY, DTYPES, EARLY, MIXED, TO_HOST, WAIT
from pretend_cuda.process import Found, Job, results

import pytest

KINDS = {
    "nothing": [],
    "item": [WAIT],
    "truth": [WAIT],
    "list": [WAIT],
    "places": [WAIT],
    "mask as index": [WAIT],
    "list as index": [BLOCKING],
    "copy to host": [TO_HOST],
    "into pageable memory": [TO_HOST],
    "into pinned memory": [COPY],
    "made from numbers": [BLOCKING],
    "handed over": [COPY],
    "filled": [],
    "host operand": [MIXED],
    "host scalar": [],
    "dtypes of a copy": [DTYPES],
    "dtypes of attention": [DTYPES],
    "attention": [],
    "collective": [COLLECTIVE],
    "read too early": [COPY, EARLY],
    "read in time": [COPY, WAIT],
}


pytestmark = pytest.mark.distributed  # one other process


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    jobs = [
        Job("rules", call="device_rules:noticed"),
        Job("gradients", call="device_rules:gradients"),
        Job("copies", call="device_rules:host_copies"),
    ]
    return results(jobs, tmp_path_factory)


def test_every_rule_is_noticed(found: dict[str, Found]) -> None:
    assert found["rules"].error is None
    seen = {name: [] for name in KINDS}
    for row in found["rules"].rows:
        if row.phase in seen:
            seen[row.phase].append(row.kind)
    assert {name: sorted(set(kinds)) for name, kinds in seen.items()} == {n: sorted(k) for n, k in KINDS.items()}


def test_gradients_are_those_of_the_cpu(found: dict[str, Found]) -> None:
    assert found["gradients"].error is None
    on_device, on_cpu = found["gradients"].value
    assert on_device == pytest.approx(on_cpu, rel=0.05, abs=0.02) and any(on_cpu)


def test_copies_to_the_host_wait_once(found: dict[str, Found]) -> None:
    assert found["copies"].error is None and not found["copies"].refused()
    assert found["copies"].value == {"values": [[0, 1, 2, 3], [1, 1], 1], "tied": True, "on": "cpu"}
    assert sum(row.count for row in found["copies"].waits("copies")) == 1
    assert sum(row.count for row in found["copies"].copies("copies")) == 2
