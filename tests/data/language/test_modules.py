"""Data modules of language models: built-in and users' rows, splits, resuming, bad input."""

import json
import logging

from alignlab.data.language import movies
from alignlab.data.language.modules import LanguageDataModule
from alignlab.data.language.movies import MoviePreferences, MoviePrompts, MovieReviews
from alignlab.data.language.own_rows import OwnRows
from alignlab.data.language.rated_reviews import RatedTexts, rated_reviews

import pytest
import torch


@pytest.fixture(autouse=True)
def fewer_reviews(monkeypatch):
    """Every twentieth review: rendering all of them takes seconds."""
    few = RatedTexts(rated_reviews().texts[::20], rated_reviews().shares[::20])
    monkeypatch.setattr(movies, "rated_reviews", lambda name="movie_reviews": few)


def ready(module):
    module.setup()
    return module


def same(a, b):
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in zip(a, b, strict=True))


def test_the_built_in_sets_share_their_split():
    reviews, pairs = (
        ready(LanguageDataModule(MovieReviews, vocab_size=600)),
        ready(LanguageDataModule(MoviePreferences, vocab_size=600, group_size=4, batch_size=8)),
    )
    batch = next(iter(reviews.train_dataloader()))
    assert batch.ids.shape[0] == 32 and not batch.packed and (batch.ids[:, 0] == reviews.vocabulary.bos_id).all()
    assert len(reviews.rows["val"]) == len(pairs.source.rated_texts("val"))
    group = next(iter(pairs.train_dataloader()))
    assert len(group.ids) == 32 and len(group.first) == 8 * 6 and (group.share >= 0.5).all()
    assert sum(len(b.index) for b in pairs.source.rated_batches("val", pairs.renderer, 8)) == len(
        pairs.source.rated_texts("val")
    )
    prompts = ready(LanguageDataModule(MoviePrompts, vocab_size=600, min_words=0, max_words=0, batch_size=4))
    assert next(iter(prompts.train_dataloader())).ids.tolist() == [[prompts.vocabulary.bos_id]] * 4


def test_packed_rows_hold_all_texts():
    packed, plain = (
        ready(LanguageDataModule(MovieReviews, vocab_size=600, pack=True)),
        ready(LanguageDataModule(MovieReviews, vocab_size=600)),
    )
    store = packed.rows["train"].store
    assert len(packed.rows["train"]) < 0.6 * len(plain.rows["train"])
    assert packed.rows["train"].row_lengths(0).sum() == store.lengths.sum()
    assert not packed.rows["val"].row_lengths(0).sum() < plain.rows["val"].row_lengths(0).sum()


def test_a_loader_goes_on_where_it_was():
    whole = list(ready(LanguageDataModule(MoviePreferences, vocab_size=600, batch_size=32)).train_dataloader())
    first = ready(LanguageDataModule(MoviePreferences, vocab_size=600, batch_size=32)).train_dataloader()
    batches = iter(first)
    assert all(same(next(batches), wanted) for wanted in whole[:3])
    second = ready(LanguageDataModule(MoviePreferences, vocab_size=600, batch_size=32)).train_dataloader()
    second.load_state_dict(first.state_dict())
    assert all(same(a, b) for a, b in zip(second, whole[3:], strict=True))


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_own_rows_of_all_kinds(tmp_path):
    words = "one two three four five six seven eight nine ten".split()
    texts = write(
        tmp_path / "t.jsonl", [{"prompt": f"{w} {i}", "completion": f" {w}"} for i in range(4) for w in words]
    )
    module = ready(LanguageDataModule(OwnRows, path=texts, val_share=0.3, vocab_size=600))
    assert len(module.rows["train"]) + len(module.rows["val"]) == 40 and len(module.rows["val"])
    pairs = write(tmp_path / "p.jsonl", [{"chosen": f"say {a} yes", "rejected": f"say {a} no"} for a in words])
    module = ready(
        LanguageDataModule(OwnRows, path=pairs, val_path=pairs, kind="preference", vocab_size=600, batch_size=2)
    )
    batch = next(iter(module.train_dataloader()))
    assert batch.share.tolist() == [1, 1] and batch.first.tolist() == [0, 2]
    module = ready(LanguageDataModule(OwnRows, path=texts, val_path=texts, kind="prompt", vocab_size=600))
    assert next(iter(module.train_dataloader())).mask[:, -1].all()


def test_pairs_that_are_equal_after_cutting_are_counted_dropped_and_said(tmp_path, caplog):
    long = " ".join(["word"] * 30)
    rows = [{"prompt": long, "chosen": " yes", "rejected": " no"}, {"prompt": "a", "chosen": " b", "rejected": " c"}]
    file = write(tmp_path / "p.jsonl", rows)
    with caplog.at_level(logging.WARNING):
        module = ready(
            LanguageDataModule(
                OwnRows, path=file, val_path=file, kind="preference", max_length=16, vocab_size=600, batch_size=1
            )
        )
    assert "1 of 2 pairs have equal sides" in caplog.text and len(module.rows["train"]) == 1
    with pytest.raises(ValueError, match="1 of 1 pairs have equal sides"):
        only = write(tmp_path / "q.jsonl", rows[:1])
        ready(LanguageDataModule(OwnRows, path=only, val_path=only, kind="preference", max_length=16, vocab_size=600))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, r"batch_size is 0"),
        ({"val_share": 1.0}, r"val_share is 1\.0"),
        ({"vocab_size": 100}, r"vocab_size is 100"),
        ({"group_size": 1}, r"group_size is 1"),
        ({"batch_size": 100_000}, "don't fill one batch"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        ready(LanguageDataModule(MoviePreferences, **settings)).train_dataloader()
