"""Packing, grouping by length, orders of epochs, comparisons, padding."""

from alignlab.data.language.batches import (
    ComparisonRows,
    Preferences,
    PromptRows,
    TextRows,
    TokenStore,
    epoch_order,
    pack,
    targets,
)
from alignlab.data.language.rendering import Rendered

import numpy as np
import torch


def store(lengths, num_prompt=1):
    return TokenStore(
        [
            Rendered(list(range(100 * i, 100 * i + n)), [j >= num_prompt for j in range(n)])
            for i, n in enumerate(lengths)
        ]
    )


def test_packing_loses_nothing_and_overfills_nothing():
    lengths = np.random.default_rng(0).integers(1, 60, 500)
    rows = pack(lengths, 64)
    assert sorted(i for row in rows for i in row) == list(range(500))
    fill = [lengths[row].sum() for row in rows]
    assert max(fill) <= 64 and np.mean(fill) > 0.95 * 64


def test_an_epoch_has_every_row_once_in_batches_of_like_length():
    lengths = np.random.default_rng(1).integers(1, 200, 1003)
    order = epoch_order(lengths, 10, seed=0, epoch=3)
    assert sorted(order) == list(range(1003))
    spread = np.mean([np.ptp(lengths[order[i : i + 10]]) for i in range(0, 1000, 10)])
    assert spread < 20
    assert not np.array_equal(order, epoch_order(lengths, 10, seed=0, epoch=4))


def test_one_rank_with_2b_sees_what_two_ranks_with_b_see():
    rows = TextRows(store([3, 5, 4, 2, 6, 3, 5, 4]), seed=5)
    rows.joint_batch = 4
    whole = rows.__getitems__([8, 9, 10, 11]).ids  # the second epoch
    halves = [rows.__getitems__(part).ids for part in ([8, 9], [10, 11])]
    firsts = [row[0].item() for half in halves for row in half]
    assert [row[0].item() for row in whole] == firsts


def test_rows_of_several_texts_keep_them_apart():
    batch = TextRows(store([3, 2, 4]), seed=None, capacity=5).__getitems__([0, 1])
    assert batch.packed and batch.ids.tolist() == [[200, 201, 202, 203, 0], [0, 1, 2, 100, 101]]
    assert batch.document.tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 2, 2]]
    assert batch.position.tolist() == [[0, 1, 2, 3, 0], [0, 1, 2, 0, 1]]
    assert batch.ids.flatten()[batch.target].tolist() == [201, 202, 203, 1, 2, 101]


def test_targets_leave_out_the_first_token_even_without_a_prompt():
    assert targets([np.array([True, True]), np.array([False, False, True])]).tolist() == [1, 5]


def test_every_two_texts_of_a_group_are_compared_and_the_preferred_comes_first():
    ratings = np.array([0.0, 3.0, 1.0, 2.0, 5.0, 4.0], dtype=np.float32)

    def preference(first, second):
        margin = ratings[first] - ratings[second]
        return Preferences((1 / (1 + np.exp(-margin))).astype(np.float32), margin)

    rows = ComparisonRows(store([2, 3, 4, 2, 3, 4]), lambda e: np.roll(np.arange(6), e).reshape(2, 3), preference, None)
    batch = rows.__getitems__([0, 1])
    assert len(batch.first) == 6 and (batch.share >= 0.5).all() and (batch.margin > 0).all()
    pairs = {(int(batch.index[a]), int(batch.index[b])) for a, b in zip(batch.first, batch.second, strict=True)}
    assert pairs == {(1, 0), (2, 0), (1, 2), (4, 3), (5, 3), (4, 5)}
    assert rows.__getitems__([2]).index.tolist() == [5, 0, 1]  # the second epoch draws other groups


def test_prompts_are_padded_on_the_left():
    batch = PromptRows([[7], [8, 9, 10]], None).__getitems__([0, 1])
    assert batch.ids.tolist() == [[0, 0, 7], [8, 9, 10]] and batch.mask.tolist() == [[False, False, True], [True] * 3]
    assert torch.equal(batch.index, torch.tensor([0, 1]))
