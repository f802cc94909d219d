"""Own pictures and captions: reading, caching, broken files, batches."""

import logging
import pickle

from alignlab.data.image_text.modules import PairDataModule
from alignlab.data.image_text.pairs import ImageTextPairs
from alignlab.data.image_text.picture_cache import PictureCache, read_picture

import numpy as np
import pytest
from PIL import Image

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


@pytest.fixture
def listing(tmp_path):
    """30 pictures of one colour each, in several formats and modes; two captions for each."""
    rows = ["image,caption"]
    for number in range(30):
        name, colour = list(COLOURS.items())[number % 3]
        file = f"{number}.{('png', 'jpg')[number % 2]}"
        Image.new("RGB", (60 + number, 40), colour).save(tmp_path / file)
        rows += [f"{file},a {name} picture", f"{file},something {name}"]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    return tmp_path / "list.csv"


def pairs(listing, **settings):
    return ImageTextPairs(str(listing), 32, **{"val_share": 0.2, "cache_gb": 0.01, **settings})


def test_an_epoch_shows_every_picture_once_under_one_of_its_captions(listing):
    source = pairs(listing)
    epochs = [[source.train_pair(epoch * source.num_train + i) for i in range(source.num_train)] for epoch in range(3)]
    for epoch in epochs:
        assert sorted(pair.image_id for pair in epoch) == list(range(source.num_train))
        for pair in epoch:
            (name,) = (name for name in COLOURS if name in pair.caption)
            assert pair.picture.shape == (32, 32, 3) and np.abs(pair.picture.mean((0, 1)) - COLOURS[name]).max() < 4
    assert [p.image_id for p in epochs[0]] != [p.image_id for p in epochs[1]]
    assert {pair.caption.split()[0] for epoch in epochs for pair in epoch} == {"a", "something"}
    again = pairs(listing, cache_gb=0).train_pair(source.num_train + 2)
    assert np.array_equal(again.picture, epochs[1][2].picture) and again[1:] == epochs[1][2][1:]


def test_the_second_epoch_decodes_nothing(listing, monkeypatch):
    source = pairs(listing)
    first = [source.train_pair(i) for i in range(source.num_train)]
    monkeypatch.setattr(Image, "open", None)
    source._order = (-1, None)
    for i, pair in enumerate(first):
        assert np.array_equal(source.train_pair(i).picture, pair.picture)


def test_the_cache_is_bounded_and_shared(tmp_path):
    rng = np.random.Generator(np.random.PCG64(0))
    files = []
    for number in range(4):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(rng.integers(0, 255, (20 + number, 30, 3), dtype=np.uint8)).save(files[-1])
    cache = PictureCache(4, 10, 2 * 300 + 299)
    assert cache.num_slots == 2
    pictures = [cache.get(i, file) for i, file in enumerate(files)]
    assert all(p.width * p.height <= 100 for p in pictures[:2])
    assert [p.size for p in pictures[2:]] == [(30, 22), (30, 23)]  # without room: as they were decoded
    assert abs(pictures[0].width / pictures[0].height - 1.5) < 0.2  # at its own aspect ratio
    other = pickle.loads(pickle.dumps(cache))  # what a spawned worker gets
    files[0].unlink()
    assert np.array_equal(other.get(0, files[0]), pictures[0])
    files[3].unlink()
    with pytest.raises(ValueError, match=r"3.png can't be read"):
        other.get(3, files[3])


def test_transparent_palette_and_turned_pictures(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert np.asarray(read_picture(tmp_path / "clear.png", 64)).min() == 255  # on white
    Image.new("L", (8, 8), 100).save(tmp_path / "grey.png")
    assert np.asarray(read_picture(tmp_path / "grey.png", 64)).tolist()[0][0] == [100, 100, 100]
    turned = Image.new("RGB", (16, 8), (9, 9, 9))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert read_picture(tmp_path / "turned.jpg", 1000).size == (8, 16)


def test_a_broken_picture_stops_or_is_skipped(listing, caplog):
    broken = listing.parent / "4.png"
    broken.write_bytes(broken.read_bytes()[:60])
    source = pairs(listing, val_share=0.01, val_annotations=str(listing))
    with pytest.raises(
        ValueError, match=r"list.csv, line 10: the picture .*4.png can't be read: .*on_error=skip"
    ) as caught:
        [source.train_pair(i) for i in range(source.num_train)]
    assert "\n" not in str(caught.value)
    source = pairs(listing, val_annotations=str(listing), on_error="skip")
    with caplog.at_level(logging.WARNING):
        found = [source.train_pair(i) for i in range(2 * source.num_train)]
    assert sum(pair is None for pair in found) == 2 and source.skipped == {4}
    assert caplog.text.count("left out, number") == 2  # held out, and trained on


def test_broken_held_out_pictures_are_left_out_of_their_split(listing, caplog):
    held_out = "".join(f"{number}.png,one,{split}\n" for number, split in ((4, "val"), (6, "val"), (8, "test")))
    (listing.parent / "held_out.csv").write_text(f"image,caption,split\n0.png,two,train\n{held_out}")
    (listing.parent / "4.png").write_bytes(b"no picture")
    module = PairDataModule(
        ImageTextPairs,
        annotations=str(listing.parent / "held_out.csv"),
        image_size=24,
        batch_size=1,
        num_workers=0,
        on_error="skip",
        cache_gb=0,
    )
    module.setup()
    assert "held_out.csv, line 3: the picture" in caplog.text and "left out, number" in caplog.text
    assert [len(batch.image) for batch in module.val_dataloader()] == [1]
    assert [batch.image_index.tolist() for batch in module.retrieval_dataloader()] == [[0]]
    with pytest.raises(
        ValueError, match=r"line 3: the picture .*4.png can't be read: .*\(on_error=skip leaves it out\)"
    ):
        source = pairs(listing.parent / "held_out.csv")
        [source.picture(i, "val") for i in range(2)]
    (listing.parent / "6.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="every picture of the split 'val' is broken"):
        pairs(listing.parent / "held_out.csv", on_error="skip")


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_with_a_skipped_picture_stay_whole(listing, workers):
    (listing.parent / "4.png").write_bytes(b"no picture")
    module = PairDataModule(
        ImageTextPairs,
        annotations=str(listing),
        val_annotations=str(listing),
        image_size=24,
        batch_size=10,
        num_workers=workers,
        on_error="skip",
        cache_gb=0.01,
    )
    module.setup()
    batches = list(module.train_dataloader())
    assert [batch.image.shape for batch in batches] == [(10, 3, 24, 24)] * 3
    assert 4 not in {i for batch in batches for i in batch.image_id.tolist()}
    module.source.on_error = "raise"
    module.source.skipped.clear()
    with pytest.raises(ValueError, match=r"^.*list.csv, line 10: the picture .*4.png can't be read") as caught:
        list(module.train_dataloader())
    assert "\n" not in str(caught.value)


def test_retrieval_has_all_captions(listing):
    module = PairDataModule(
        ImageTextPairs,
        annotations=str(listing),
        val_share=0.3,
        image_size=24,
        batch_size=4,
        num_workers=0,
        cache_gb=0.0,
    )
    module.setup()
    batch = next(iter(module.retrieval_dataloader()))
    assert batch.image.shape == (4, 3, 24, 24) and len(batch.ids) == 8
    assert batch.image_of_text.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert module.zero_shot_sets() == {} and module.picture(0).size == (24, 24)


def test_captions_can_be_cleaned(listing):
    listing.write_text("image,caption,split\n0.png,A well-known: Thing!,train\n1.jpg,An other,val\n")
    assert pairs(listing, clean_captions=True).train_pair(0).caption == "a well known thing"


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"crop_scale": (0.0, 1.0)}, "crop_scale"),
        ({"on_error": "ignore"}, "on_error"),
        ({"val_share": 1.5}, "val_share"),
        ({"augment_magnitude": 11}, "augment_magnitude"),
    ],
)
def test_impossible_settings(listing, settings, key):
    with pytest.raises(ValueError, match=key):
        pairs(listing, **settings)


def test_a_list_without_one_side_of_the_split(listing):
    listing.write_text("image,caption,split\n0.png,one,val\n")
    with pytest.raises(ValueError, match="leaves no picture for the split 'train'"):
        pairs(listing)
