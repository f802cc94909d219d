"""Copies in host memory keep what a checkpoint is made of: containers, their attributes, tied weights, values."""

import io
from collections import OrderedDict

from alignlab.callbacks.keeping.host_copies import floats, host_copies

import pytest
import torch


def saved(tree: object) -> bytes:
    file = io.BytesIO()
    torch.save(tree, file)
    return file.getvalue()


def test_on_a_cpu_nothing_is_copied_and_the_file_is_the_same() -> None:
    net = torch.nn.Linear(3, 2)
    tree = {"state_dict": net.state_dict(), "loops": [1, (2, None)], "tied": (net.weight, net.weight)}
    found = host_copies(tree)
    assert found["state_dict"]["weight"] is tree["state_dict"]["weight"] and found["tied"][0] is net.weight
    assert type(found["state_dict"]) is OrderedDict and found["state_dict"]._metadata == net.state_dict()._metadata
    assert saved(found) == saved(tree)


def test_fresh_copies_share_nothing_with_what_goes_on() -> None:
    x, rows = torch.ones(3), [1, 2]
    found = host_copies({"x": x, "rows": {"of": rows}}, fresh=True)
    x.zero_()
    rows.append(3)
    assert found["x"].tolist() == [1, 1, 1] and found["rows"]["of"] == [1, 2]


def test_numbers_of_any_kind_in_one_copy() -> None:
    metrics = {"a": torch.tensor(0.1), "b": torch.tensor([3]), "c": torch.tensor(0.1, dtype=torch.float64)}
    assert floats(metrics) == {"a": pytest.approx(0.1, abs=1e-7), "b": 3.0, "c": 0.1} and floats({}) == {}
