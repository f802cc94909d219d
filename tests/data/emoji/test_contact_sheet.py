"""Contact sheets show every picture where it belongs."""

from alignlab.data.emoji.contact_sheet import contact_sheet, near_misses_sheet, scenes_sheet

import numpy as np


def test_pictures_stand_in_rows():
    pictures = [np.full((4, 4, 3), value, np.uint8) for value in (10, 60, 110)]
    sheet = np.asarray(contact_sheet(pictures, ["one", "two words", "three"], columns=2, side=20))
    assert sheet[16, 16].tolist() == [10] * 3 and sheet[16, 42].tolist() == [60] * 3
    below = np.argwhere((sheet == 110).all(-1))
    assert below[:, 1].max() < 26 and below[:, 0].min() > 26


def test_scenes_fill_a_sheet():
    assert scenes_sheet(5, 24, "val", 0).width == 4 * 198 + 6


def test_near_misses_stand_side_by_side():
    sheet = near_misses_sheet(24, per_fact=1)
    assert sheet.width == 2 * 198 + 6 and sheet.height > 6 * 198  # six facts
