"""The built-in ratings: what is in the file, splits by text, the share of raters that prefers one text."""

import itertools

from alignlab.data.language.rated_reviews import RatedTexts, in_validation, rated_reviews

import numpy as np
import pytest


def test_the_files_hold_what_the_page_says():
    movies, products = rated_reviews(), rated_reviews("product_reviews")
    assert (len(movies), len(products)) == (10_603, 3_696)
    assert len(set(movies.texts)) == len(movies)
    third = movies.texts.index("Effective but too tepid biopic")
    assert movies.means[third] == pytest.approx(-0.6, abs=1e-6)  # the source's own mean of 15 ratings
    assert np.allclose(movies.shares.sum(1), 1, atol=1e-6)


def test_the_share_is_that_of_all_pairs_of_raters():
    ratings = [[-1, 0, 0, 2], [0, 0, 1], [-4, 4, -4, 4, 1]]
    shares = np.array([np.bincount(np.array(r) + 4, minlength=9) / len(r) for r in ratings], dtype=np.float32)
    texts = RatedTexts(["a", "b", "c"], shares)
    for a, b in itertools.permutations(range(3), 2):
        wanted = np.mean([(x > y) + 0.5 * (x == y) for x in ratings[a] for y in ratings[b]])
        assert texts.preference(np.array([a]), np.array([b]))[0] == pytest.approx(wanted, abs=1e-6)


def test_splits_are_by_text_and_differ_by_seed():
    train, val = rated_reviews().part("train"), rated_reviews().part("val")
    assert not set(train.texts) & set(val.texts) and len(train) + len(val) == len(rated_reviews())
    assert 0.09 < len(val) / len(rated_reviews()) < 0.11
    other = set(rated_reviews().part("val", seed=1).texts)
    assert len(other & set(val.texts)) < 0.2 * len(other)
    assert in_validation("A  Film", 3, 0.5) == in_validation("a film", 3, 0.5)
