"""Picture files of every mode as a viewer shows them; broken ones are named; cached ones fit their slot."""

import struct
import zlib

from alignlab.data.image_text.picture_cache import PictureCache, read_picture

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

RAMP = (np.arange(64, dtype=np.uint16) * 1040).reshape(8, 8)  # 0 to 65,520


def pixels(file, area=10_000):
    return np.asarray(read_picture(file, area)).astype(int)


def in_8_bits(values, top):
    """(H, W, 3) what a viewer shows of grey values 0 to `top`."""
    return np.repeat(np.rint(np.asarray(values, dtype=float) * 255 / top)[..., None], 3, axis=2)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jp2"])
def test_16_bit_grey_is_scaled(tmp_path, name):
    Image.fromarray(RAMP).save(tmp_path / name)
    assert np.abs(pixels(tmp_path / name) - in_8_bits(RAMP, 65535)).max() <= 1


def test_16_bit_grey_of_a_netpbm_file(tmp_path):
    values = RAMP // 65  # 0 to 1,008 of 1,023
    (tmp_path / "a.pgm").write_bytes(b"P5 8 8 1023\n" + values.astype(">u2").tobytes())
    assert np.abs(pixels(tmp_path / "a.pgm") - in_8_bits(values, 1023)).max() <= 1


def tiff(values, bits, photometric):
    """A TIFF of one grey row with `bits` a value, packed; little-endian header, one strip."""
    packed = int("".join(f"{value:0{bits}b}" for value in values), 2).to_bytes(len(values) * bits // 8, "big")
    if bits == 16:
        packed = struct.pack(f"<{len(values)}H", *values)
    tags = [
        (256, len(values)),
        (257, 1),
        (258, bits),
        (259, 1),
        (262, photometric),
        (273, 8),
        (277, 1),
        (278, 1),
        (279, len(packed)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags)
    packed += b"\0" * (len(packed) % 2)
    return b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + struct.pack("<H", len(tags)) + entries + b"\0" * 4


@pytest.mark.parametrize(("bits", "photometric"), [(12, 1), (16, 1), (16, 0)])
def test_tiff_files_of_12_and_16_bits_and_negatives(tmp_path, bits, photometric):
    top = 2**bits - 1
    values = [0, top // 4, top // 2, top]
    (tmp_path / "a.tif").write_bytes(tiff(values, bits, photometric))
    expected = in_8_bits([values], top)
    assert np.abs(pixels(tmp_path / "a.tif") - (expected if photometric else 255 - expected)).max() <= 1


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_numbers_without_a_shade_are_refused_by_name(tmp_path, kind):
    Image.fromarray(RAMP.astype(kind)).save(tmp_path / "a.tif")
    with pytest.raises(
        ValueError, match=r"a.tif can't be read: its values are 32-bit numbers .mode [IF].; save it with"
    ):
        read_picture(tmp_path / "a.tif", 100)


@pytest.mark.parametrize(("mode", "colour"), [("RGB", (255, 0, 0)), ("L", 7), ("1", 0), ("P", 0)])
def test_a_transparent_colour_is_white(tmp_path, mode, colour):
    picture = Image.new(mode, (4, 4), colour)
    picture.paste(Image.new(mode, (2, 4), (0, 0, 255) if mode == "RGB" else 100), (0, 0))
    picture.save(tmp_path / "a.png", transparency=colour)
    assert (pixels(tmp_path / "a.png")[:, 2:] == 255).all()
    assert pixels(tmp_path / "a.png")[0, 0].tolist() == np.asarray(picture.convert("RGB"))[0, 0].tolist()


def test_a_transparent_colour_of_16_bits_is_white(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "grey.png", transparency=1040)
    assert pixels(tmp_path / "grey.png")[0, :3, 0].tolist() == [0, 255, 8]

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    clear, solid = (0x1234, 0x5678, 0x9ABC), (0x2000, 0x4000, 0x6000)
    row = b"\0" + struct.pack(">6H", *clear, *solid)
    (tmp_path / "colour.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
        + chunk(b"tRNS", struct.pack(">3H", *clear))
        + chunk(b"IDAT", zlib.compress(row))
        + chunk(b"IEND", b"")
    )
    assert pixels(tmp_path / "colour.png").tolist() == [[[255] * 3, [0x20, 0x40, 0x60]]]


@pytest.mark.parametrize("size", [(10_000, 1), (1, 10_000), (90_000, 1), (20_000, 3)])
@pytest.mark.parametrize("side", [45, 314])
def test_very_long_pictures_fit_their_slot(tmp_path, size, side):
    Image.new("L", size, 50).save(tmp_path / "a.png")
    cache = PictureCache(1, side, 10**7)
    decoded, kept = cache.get(0, tmp_path / "a.png"), cache.get(0, tmp_path / "a.png")
    assert decoded.size == kept.size and decoded.width * decoded.height <= side**2
    assert np.array_equal(decoded, kept) and np.asarray(kept).min() == 50 == np.asarray(kept).max()


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"II*\0\x08\0\0\0\xff\xff", b"P5 8 8 0\n", b"GIF89a"]
)
def test_whatever_a_broken_file_does_is_one_line(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"^the picture .*a.png can't be read: .") as caught:
        read_picture(tmp_path / "a.png", 100)
    assert "\n" not in str(caught.value)


TURNED = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"  # by 90 degrees


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_damaged_extras_keep_no_picture_from_being_shown(tmp_path, kind):
    """A damaged EXIF block, text or profile, with and without its checksum mended, as in files after a broken copy."""
    file, made = tmp_path / f"a.{kind}", Image.new("RGB", (40, 30), (200, 30, 30))
    made.save(file, exif=TURNED, icc_profile=b"p" * 200, **({"lossless": True} if kind == "webp" else {}))
    whole = file.read_bytes()
    assert read_picture(file, 10_000).size == (30, 40)
    marks = {b"II*\0": b"\xff" * 4, b"pppp": b"\0" * 4} if kind != "png" else {b"II*\0": b"\xff" * 4, b"iCCP": b"iCCp"}
    for said, damage in marks.items():
        file.write_bytes(whole.replace(said, damage, 1))
        shown = read_picture(file, 10_000)
        assert shown.size == ((40, 30) if said == b"II*\0" else (30, 40)), said
        assert np.abs(np.asarray(shown)[5, 5].astype(int) - (200, 30, 30)).max() <= 2
    made.save(file, exif=b"Exif\0\0" + b"\xff\0garbage")
    assert read_picture(file, 10_000).size == (40, 30)


def test_large_texts_and_profiles_keep_no_png_from_being_shown(tmp_path):
    made, big = Image.new("RGBA", (40, 30), (200, 30, 30, 0)), "x" * 1_100_000
    texts = {name: PngImagePlugin.PngInfo() for name in ("text", "packed", "international", "many")}
    texts["text"].add_text("Comment", big)
    texts["packed"].add_text("Comment", big, zip=True)
    texts["international"].add_itxt("Comment", big, zip=True)
    for number in range(70):
        texts["many"].add_text(f"Comment {number}", "x" * 1_000_000, zip=True)
    for name, info in texts.items():
        made.save(tmp_path / f"{name}.png", pnginfo=info, exif=TURNED)
    made.save(tmp_path / "profile.png", icc_profile=b"\0" * 1_100_000, exif=TURNED)
    for file in tmp_path.iterdir():
        shown = read_picture(file, 10_000)
        assert shown.size == (30, 40) and shown.getpixel((0, 0)) == (255, 255, 255), file
    file.write_bytes(file.read_bytes().replace(b"IDAT", b"IDAX"))
    with pytest.raises(ValueError, match=rf"the picture {file} can't be read: "):
        read_picture(file, 10_000)
