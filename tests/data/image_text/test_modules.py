"""What every data module offers: batches, retrieval, zero-shot sets, pictures and captions."""

import itertools
from functools import partial
from types import SimpleNamespace

from alignlab.data.emoji.concepts import concepts
from alignlab.data.emoji.pictures import EmojiPairs
from alignlab.data.emoji.scene_pairs import EmojiScenePairs
from alignlab.data.image_text.batches import HELD_OUT_IDS, TrainPairs
from alignlab.data.image_text.modules import CLIP_MEAN, CLIP_STD, PairDataModule

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def scenes():
    module = PairDataModule(EmojiScenePairs, num_train=64, num_val=50, image_size=32, batch_size=16, num_workers=0)
    module.setup("fit")
    return module


def test_a_training_batch(scenes):
    batch = next(iter(scenes.train_dataloader()))
    assert batch.image.shape == (16, 3, 32, 32) and batch.image.dtype == torch.uint8 and batch.image.is_contiguous()
    assert batch.ids.shape == batch.mask.shape and batch.ids.dtype == torch.int64 and batch.mask.dtype == torch.bool
    assert batch.ids.shape[1] <= scenes.context_length
    assert torch.equal(batch.mask, batch.ids != scenes.vocabulary.pad_id)
    assert not (batch.ids == scenes.tokenizer.unk_token_id).any()
    assert batch.image_id.unique().numel() == 16
    text = scenes.tokenizer.decode(batch.ids[3], skip_special_tokens=True)
    assert text.replace(" ,", ",") == scenes.source.scenes.caption(3)


def test_pictures_are_normalised_after_the_transfer(scenes):
    batch = next(iter(scenes.train_dataloader()))
    normal = scenes.on_after_batch_transfer(batch, 0).image
    by_hand = (batch.image.double() / 255 - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(
        3, 1, 1
    )
    assert normal.dtype == torch.float32 and torch.allclose(normal.double(), by_hand, atol=2e-6, rtol=0)
    assert scenes.on_after_batch_transfer("something else", 0) == "something else"


def test_validation_pairs_are_told_apart_from_training_pairs(scenes):
    batches = list(scenes.val_dataloader())
    assert [len(batch.image) for batch in batches] == [16, 16, 16, 2]
    assert all((batch.image_id >= HELD_OUT_IDS).all() for batch in batches)


@pytest.mark.parametrize("world_size", [1, 3])
def test_retrieval_shards_cover_everything_once(scenes, world_size):
    seen = []
    for rank in range(world_size):
        scenes.trainer = SimpleNamespace(global_rank=rank, world_size=world_size)
        for batch in scenes.retrieval_dataloader():
            assert batch.image.dtype == torch.float32
            assert torch.equal(batch.image_of_text, batch.image_index)  # one caption each
            seen += batch.image_index.tolist()
    scenes.trainer = None
    assert sorted(seen) == list(range(50))


def test_zero_shot_sets_name_unseen_drawings(scenes):
    sets = scenes.zero_shot_sets()
    assert set(sets) == {"variants", "known"}
    prompts = sets["variants"].prompts
    assert prompts.names == [concept.name for concept in concepts()]
    assert prompts.ids.shape[:2] == (len(prompts.names), 5) and prompts.ids.shape == prompts.mask.shape
    assert scenes.tokenizer.decode(prompts.ids[5, 1], skip_special_tokens=True) == "a rabbit on a white background"
    assert not (prompts.ids == scenes.tokenizer.unk_token_id).any()
    first, again = ([batch.label for batch in sets["variants"].batches] for _ in range(2))
    assert torch.equal(torch.cat(first), torch.cat(again)) and torch.cat(first).max() < len(prompts.names)
    unseen = {label for label, concept in enumerate(concepts()) if concept.held_out}
    assert set(torch.cat(first).tolist()) == unseen
    for name, used in (("variants", "held_out"), ("known", "drawings")):
        pictures = scenes.source.zero_shot_pictures()[name]
        assert {d for c in concepts() for d in getattr(c, used)} == set(pictures.picture.drawings)


def test_single_pictures_and_captions(scenes):
    assert scenes.picture(7).size == (32, 32) and scenes.caption(7) == scenes.source.scenes.caption(7, "val")
    stored = torch.from_numpy(np.array(scenes.picture(7))).permute(2, 0, 1)[None]
    batch = next(iter(scenes.retrieval_dataloader()))
    assert torch.equal(batch.image[7:8], scenes.normalise(stored))
    ids, mask = scenes.encode_texts(["a dog", "a dog above a cat"])
    assert ids.shape == (2, 6) and mask.sum().item() == 9


def test_a_tokenizer_from_a_folder(tmp_path, scenes):
    scenes.tokenizer.save_pretrained(tmp_path)
    module = PairDataModule(
        EmojiScenePairs, num_val=20, image_size=24, tokenizer=str(tmp_path), append_sep=True, pad_to_multiple=8
    )
    module.setup()
    assert module.vocabulary == scenes.vocabulary
    ids, _ = module.encode_texts(["a dog"])
    assert ids.shape == (1, 8) and module.vocabulary.sep_id in ids


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"num_val": 5000}, "num_val is 5000"),
        ({"num_train": 100}, "100 training rows don't fill one batch: batch_size=128 on 1 processes needs 128"),
        ({"tokenizer": "no/such folder"}, "tokenizer="),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        module = PairDataModule(EmojiScenePairs, **{"image_size": 24, "num_workers": 0, **settings})
        module.setup()
        module.train_dataloader()


def test_the_emoji_module_reads_its_language():
    module = PairDataModule(EmojiPairs, language="zh", image_size=24, batch_size=32, num_workers=0)
    module.setup()
    batch = next(iter(module.train_dataloader()))
    text = module.tokenizer.decode(batch.ids[0], skip_special_tokens=True)
    assert any("\u4e00" <= letter <= "\u9fff" for letter in text)
    retrieval = list(itertools.islice(module.retrieval_dataloader(), 2))
    assert retrieval[1].image_index[0] == 32


def test_what_becomes_of_long_captions():
    """Windows: another part each time, the same in every process and run; elsewhere the beginning. Or refused."""
    make = partial(
        PairDataModule,
        EmojiScenePairs,
        image_size=24,
        num_train=8,
        num_val=8,
        batch_size=8,
        num_workers=0,
        context_length=6,
    )
    modules = {policy: make(long_captions=policy) for policy in ("cut", "windows")}
    texts = {}
    for policy, module in modules.items():
        module.setup()
        rows = module.train_dataloader().dataset
        assert isinstance(rows, TrainPairs)
        batches = [rows.__getitems__(range(first, first + 8)) for first in (0, 8, 0)]
        assert torch.equal(batches[0].ids, batches[2].ids) and torch.equal(batches[0].text_id, batches[2].text_id)
        texts[policy] = [module.tokenizer.batch_decode(batch.ids, skip_special_tokens=True) for batch in batches[:2]]
    captions = [modules["cut"].source.train_pair(serial).caption.replace(",", " ,") for serial in range(16)]
    for cut, window, whole in zip(*map(itertools.chain.from_iterable, texts.values()), captions, strict=True):
        assert whole.startswith(cut) and window in whole and len(cut.split()) == len(window.split())
    assert texts["cut"] != texts["windows"]
    with pytest.raises(ValueError, match=r"long_captions=refuse: \d+ captions don't fit into context_length=6"):
        make(long_captions="refuse").setup()
