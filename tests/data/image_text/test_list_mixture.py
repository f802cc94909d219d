"""Several lists as one data set, each as often as its weight says."""

from collections import Counter
from pathlib import Path

from alignlab.data.image_text.list_mixture import read_mixture

import numpy as np
import pytest


def listing(folder: Path, name: str, number: int, split: str = "") -> str:
    rows = "".join(f"{name}{n}.png,{name} {n},{split}\n" for n in range(number))
    (folder / f"{name}.csv").write_text(f"image,caption,split\n{rows}")
    return str(folder / f"{name}.csv")


def test_lists_with_weights(tmp_path: Path) -> None:
    coco, held, cc = listing(tmp_path, "coco", 10), listing(tmp_path, "held", 4, "val"), listing(tmp_path, "cc", 40)
    lists = [{"file": coco, "weight": 2.5}, held, {"file": cc, "weight": 0.25, "image_dir": "/pictures"}]
    found = read_mixture(lists, None, None, 0.5, 5000)
    assert [len(found.splits[name]) for name in ("train", "val")] == [50, 4] and found.num_draws == 25 + 10
    assert str(found.splits["train"][10].path) == "/pictures/cc0.png"
    assert found.splits["train"][10].where == f"annotations[2]={cc}, line 2"
    epochs = [found.order(np.random.default_rng(epoch)) for epoch in range(40)]
    for order in epochs:
        assert len(order) == 35 and sorted(Counter(order[order < 10].tolist()).values()) == [2] * 5 + [3] * 5
        assert len(set(order[order >= 10].tolist())) == 10
    drawn = Counter(np.concatenate(epochs).tolist())
    assert set(drawn) == set(range(50)), "a broken weight shows others in every epoch"


def test_lists_without_weights_have_the_order_of_one(tmp_path: Path) -> None:
    lists = [listing(tmp_path, "coco", 10), listing(tmp_path, "cc", 40)]
    found = read_mixture(lists, None, None, 0.2, 3)
    assert [len(found.splits[name]) for name in ("train", "val")] == [47, 3], "no more than max_val are held out"
    assert np.array_equal(found.order(np.random.default_rng(5)), np.random.default_rng(5).permutation(47))
    whole = read_mixture(lists, None, [listing(tmp_path, "other", 5)], 0.2, 3)
    assert [len(whole.splits[name]) for name in ("train", "val")] == [50, 5]


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([], "annotations is an empty list"),
        ([{"weight": 1}], r"annotations\[0\] needs a file; a list is a file or has the keys file, image_dir, weight"),
        (["a.csv", {"file": "b", "wieght": 2}], r"annotations\[0\]=a.csv: there is no such file"),
        ([{"file": "b", "wieght": 2}], r"annotations\[0\] has no wieght"),
        ([{"file": "b", "weight": 0}], r"annotations\[0\].weight is 0; it must be a number above 0"),
    ],
)
def test_what_is_wrong_with_lists(lists: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_mixture(lists, None, None, 0.2, 5000)


def test_a_mixture_has_shares_of_an_epoch(tmp_path: Path) -> None:
    lists = [listing(tmp_path, "coco", 10), listing(tmp_path, "cc", 40), listing(tmp_path, "held", 4, "val")]
    mixed = read_mixture(None, None, lists[2], 0.2, 100, mix={lists[0]: 6, lists[1]: 4})
    assert mixed.num_draws == 50
    order = mixed.order(np.random.default_rng(0))
    assert Counter((order < 10).tolist()) == {True: 30, False: 20} and set(range(10)) <= set(order.tolist())
    with pytest.raises(ValueError, match="annotations is not set: name a list, or several with mix="):
        read_mixture(None, None, None, 0.2, 100)
    with pytest.raises(ValueError, match="not both"):
        read_mixture(lists[0], None, None, 0.2, 100, mix={lists[0]: 6, lists[1]: 4})
