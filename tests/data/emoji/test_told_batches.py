"""Batches of scenes with sentences, foils and near misses; without these options everything is as it ever was."""

import hashlib
from types import SimpleNamespace

from alignlab.data.emoji.scene_pairs import EmojiScenePairs
from alignlab.data.emoji.scenes import EmojiScenes
from alignlab.data.image_text.modules import PairDataModule

import pytest
import torch


def module(**settings):
    data = PairDataModule(
        EmojiScenePairs, num_train=160, num_val=30, image_size=24, batch_size=16, context_length=20, **settings
    )
    data.trainer = SimpleNamespace(global_rank=0, world_size=1)
    data.setup("fit")
    return data


TOLD = {"near_misses": 0.5, "sentences": 2, "foils": 3, "num_workers": 0}


@pytest.fixture(scope="module")
def told():
    return module(**TOLD)


def test_scenes_and_captions_are_those_of_ever():
    """A digest taken before there were statements, sizes and families."""
    scenes, digest = EmojiScenes(24, seed=0, max_sprites=2), hashlib.sha256()
    for index in range(300):
        digest.update(scenes.scene(index).caption.encode())
    assert digest.hexdigest() == "feb30b540b208db86dfcb3fee89eac5acedcc44c86fcd897c0b1c6eb1f395e62"
    scenes, digest = EmojiScenes(48, seed=3), hashlib.sha256()
    for split, number in (("train", 400), ("val", 100)):
        for index in range(number):
            scene = scenes.scene(index, split)
            digest.update(repr((scene.caption, scene.sprites, scene.relations)).encode())
            if index < 40:
                digest.update(scenes.render(scene).tobytes())
    assert digest.hexdigest() == "53f652105bc8098c3b3c43116b39350f7126ca82edfa16e2b9b7fdb91bc7f345"


def test_options_that_are_off_change_nothing(told):
    plain = module(num_workers=0)
    batch, other = next(iter(plain.train_dataloader())), next(iter(told.train_dataloader()))
    assert batch.sentences is None and batch.foils is None
    assert next(iter(plain.val_dataloader())).foils is None and plain.source.told_of(0, "val") == ([], [])
    assert plain.tokenizer.get_vocab() == told.tokenizer.get_vocab()
    assert torch.equal(batch.image[::2], other.image[::2])  # what isn't a near miss is as it was
    assert not torch.equal(batch.image[1::2], other.image[1::2])


def test_sentences_and_foils_of_a_batch(told):
    batch, names = next(iter(told.train_dataloader())), told.tokenizer.convert_ids_to_tokens
    for found, number in ((batch.sentences, 2), (batch.foils, 3)):
        assert found.ids.shape == found.mask.shape and found.ids.shape[:2] == (16, number) and found.valid.all()
        assert (found.ids[found.mask == 0] == told.vocabulary.pad_id).all()
    assert batch.foils.ids.shape[2] == batch.ids.shape[1] and batch.foils.valid.shape == (16, 3)
    assert (batch.sentences.telling.sum(2) == 1).all()
    words = set(names(batch.sentences.ids[batch.sentences.telling].tolist()))
    assert words <= {"left", "right", "above", "below", "over", "under"} and len(words) >= 4
    captions = told.tokenizer.batch_decode(batch.ids, skip_special_tokens=True)
    for caption, foils in zip(captions, batch.foils.ids, strict=True):
        assert caption not in told.tokenizer.batch_decode(foils, skip_special_tokens=True)


def test_near_misses_are_neighbours(told):
    source = told.source
    missed = 0
    for serial in range(0, 160, 2):
        one, other = source.train_scene(serial), source.train_scene(serial + 1)
        assert one == source.scenes.scene(serial)
        same = {s.concept for s in one.sprites} == {s.concept for s in other.sprites}
        missed += same
        assert same == (other != source.scenes.scene(serial + 1)) and one.caption != other.caption
    assert 25 < missed < 55
    later = EmojiScenePairs(24, near_misses=0.5, near_misses_from=101)
    always = EmojiScenePairs(24, near_misses=0.5)
    scenes = [(later.train_scene(n), always.train_scene(n), later.scenes.scene(n)) for n in range(160)]
    assert all(one == plain for one, _, plain in scenes[:101]) and all(one == other for one, other, _ in scenes[101:])


def test_noise_gives_a_share_of_the_pictures_another_scenes_text():
    plain, noisy = (EmojiScenePairs(16, num_train=150, sentences=1, foils=1, noise=noise) for noise in (0.0, 0.33))
    pairs = [(plain.train_pair(serial), noisy.train_pair(serial)) for serial in range(300)]
    assert all((one.picture == other.picture).all() and one.image_id == other.image_id for one, other in pairs)
    moved = [other for one, other in pairs if one.caption != other.caption]
    assert 70 < len(moved) < 130
    texts = {pair.caption: (pair.sentences, pair.foils) for pair, _ in pairs}
    assert all(texts[pair.caption] == (pair.sentences, pair.foils) for pair in moved)
    assert noisy.captions_of(7, "val") == plain.captions_of(7, "val")


def test_ranks_workers_and_validations_have_the_same(told):
    whole = next(iter(told.train_dataloader()))
    ranks, one = [], told.trainer
    for rank in range(2):
        told.trainer, told.batch_size = SimpleNamespace(global_rank=rank, world_size=2), 8
        ranks.append(next(iter(told.train_dataloader())))
    told.trainer, told.batch_size, told.num_workers = one, 16, 1
    worked = next(iter(told.train_dataloader()))
    told.num_workers = 0
    for name in ("sentences", "foils"):
        for wanted, *parts in zip(getattr(whole, name), *(getattr(rank, name) for rank in ranks), strict=True):
            length = min(x.shape[-1] for x in (wanted, *parts))  # padded to the longest of each
            assert torch.equal(wanted[..., :length], torch.cat([part[..., :length] for part in parts]))
    first, again = (next(iter(told.val_dataloader())) for _ in range(2))
    for one, other in ((whole, worked), (first, again)):
        assert all(torch.equal(a, b) for name in (5, 6) for a, b in zip(one[name], other[name], strict=True))
    moved = whole.moved(torch.device("meta"))
    assert moved.foils.valid.is_meta and moved.sentences.telling.shape == whole.sentences.telling.shape


@pytest.mark.parametrize(
    "settings",
    [
        {"near_misses": 1.5},
        {"near_misses_from": -1},
        {"noise": -0.1},
        {"sentences": -1},
        {"foils": -2},
        {"facts": ["colour"]},
    ],
)
def test_impossible_settings(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        EmojiScenePairs(24, **settings)
