"""Sheets: any size and number of pictures, wrapped captions, frames and overlays where they belong."""

from alignlab.evaluation.sheets import RIGHT, WRONG, SheetRow, Tile, draw_sheet, fit, font, overlay, shortened, wrap

import pytest
import torch
from PIL import Image

LONG = "a very long caption about a supercalifragilisticexpialidociousandmore thing " * 4


@pytest.mark.parametrize("size", [(48, 48), (7, 31), (500, 200), (1, 1)])
@pytest.mark.parametrize("number", [1, 2, 5])
def test_any_size_and_number(size, number):
    tiles = [Tile(Image.new("RGB", size, (0, 0, 255)), RIGHT if i == 0 else WRONG, f"{i}.00") for i in range(number)]
    sheet = draw_sheet(
        "title", "legend", [SheetRow(LONG, "note", tiles), SheetRow("short", "", tiles[:1], aside=tiles[-1])]
    )
    colours = {colour for _, colour in sheet.getcolors(1 << 24)}
    assert {RIGHT, (0, 0, 255)} <= colours and (WRONG in colours) == (number > 1)


def test_rows_are_high_enough_for_their_captions():
    tile = [Tile(Image.new("L", (9, 9)), RIGHT, "")]
    low, high = draw_sheet("t", "l", [SheetRow("word", "", tile)]), draw_sheet("t", "l", [SheetRow(LONG * 2, "", tile)])
    assert high.height > low.height + 100 and high.width == low.width


def test_a_long_name_keeps_its_end_and_has_a_line_of_its_own():
    name, tile = "photos/2026/" + "holiday" * 20 + "/dog.jpg", Tile(Image.new("L", (9, 9)), RIGHT, "0.31")
    assert shortened("dog.jpg", 142) == "dog.jpg"
    short = shortened(name, 142)
    assert short.startswith("…") and short.endswith("holiday/dog.jpg") and font(11).getlength(short) <= 142
    heights = [draw_sheet("t", "l", [SheetRow("w", "", [t])]).height for t in (tile, tile._replace(name=name))]
    assert heights[1] == heights[0] + 21


def test_wrap_keeps_every_character_and_the_width():
    face = font(16)
    lines = wrap(LONG, 120, face)
    assert "".join(lines).replace(" ", "") == LONG.replace(" ", "")
    assert max(face.getlength(line) for line in lines) <= 120
    assert wrap("一二三四五六七八九十" * 3, 60, face)[1:]  # without spaces
    assert wrap("", 100, face) == [] and wrap("x", 1, face) == ["x"]


def test_fit_keeps_the_aspect():
    assert fit(Image.new("RGB", (48, 48)), 132).size == (132, 132)
    assert fit(Image.new("RGBA", (400, 100)), 132).size == (132, 33)
    assert fit(Image.new("P", (1, 400)), 132).size == (1, 132)


def test_overlay_colours_the_hot_place_and_leaves_cold_ones():
    picture, heat = Image.new("RGB", (40, 40), (200, 200, 200)), torch.zeros(4, 4)
    heat[0, 3] = 5.0
    hot = overlay(picture, heat, 80)
    assert hot.getpixel((10, 70)) == (200, 200, 200)
    assert hot.getpixel((72, 6))[2] < 100  # turbo's hot end has no blue
    assert overlay(picture, torch.zeros(4, 4), 80).getcolors() == [(6400, (200, 200, 200))]
    assert overlay(picture, torch.full((4, 4), torch.nan), 80).size == (80, 80)
