"""Sheets of pictures: everything is on them, whole, at its place, and words fit."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from foveate.explain import Panel, Strip, contact_sheet, palette_stops
from foveate.explain.lettering import font, height_of, legend, shortened, width_of, wrapped
from foveate.explain.records import GATE, RECEIVED

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (200, 30, 200), (30, 200, 200)]


def panel(colour: tuple[int, int, int], size: tuple[int, int] = (64, 40), title: str = "") -> Panel:
    return Panel(Image.new("RGB", size, colour), title)


def found(sheet: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of what has exactly this colour; it must fill them."""
    matching = (np.asarray(sheet) == colour).all(-1)
    rows, columns = np.nonzero(matching)
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert matching[box[1] : box[3], box[0] : box[2]].all()
    return box


def test_pictures_stand_in_rows_and_columns_as_they_are() -> None:
    a, b, c, d, e, f = (panel(colour) for colour in COLOURS)
    sheet = contact_sheet([[Strip([a]), Strip([b, c])], [Strip([d]), Strip([e, f])]], side=64)
    boxes = [found(sheet, colour) for colour in COLOURS]
    assert all((right - left, bottom - top) == (64, 40) for left, top, right, bottom in boxes)
    assert [box[1] for box in boxes[:3]] == [boxes[0][1]] * 3
    assert [box[0] for box in boxes[:3]] == [box[0] for box in boxes[3:]]
    assert boxes[0][2] < boxes[1][0] < boxes[1][2] < boxes[2][0]
    assert boxes[0][3] < boxes[3][1]


def test_large_pictures_are_reduced_in_proportion_small_ones_left() -> None:
    sheet = contact_sheet([[Strip([panel(COLOURS[0], (1000, 500)), panel(COLOURS[1], (20, 30))])]], side=100)
    left, top, right, bottom = found(sheet, COLOURS[0])
    assert (right - left, bottom - top) == (100, 50)
    left, top, right, bottom = found(sheet, COLOURS[1])
    assert (right - left, bottom - top) == (20, 30)


def test_an_empty_strip_leaves_its_place_empty() -> None:
    rows = [[Strip([panel(COLOURS[0])]), Strip([panel(COLOURS[1])])], [Strip([]), Strip([panel(COLOURS[2])])]]
    sheet = contact_sheet(rows, side=64)
    assert found(sheet, COLOURS[1])[0] == found(sheet, COLOURS[2])[0]


def test_words_stand_where_they_belong_and_nothing_is_cut() -> None:
    """Ink above each picture, below it, and a white margin all around, whatever the length of the words."""
    long = "a_name_without_any_place_to_break_it_that_is_far_too_long_for_its_picture " * 2
    strips = [Strip([panel(COLOURS[0], title=long)], long), Strip([panel(COLOURS[1], title="b")], "caption")]
    sheet = contact_sheet(
        [strips], title=long, headings=["one", long], scales=[GATE, RECEIVED, GATE], notes=[long], side=64
    )
    values = np.asarray(sheet.convert("L"))
    dark = values < 128
    margin = 10
    for edge in (dark[:margin], dark[-margin:], dark[:, :margin], dark[:, -margin:]):
        assert not edge.any()
    for colour in COLOURS[:2]:
        left, top, right, bottom = found(sheet, colour)
        assert dark[top - 20 : top, left:right].any()
        assert dark[bottom : bottom + 25, left:right].any()


def test_the_same_scale_is_explained_once() -> None:
    rows = [[Strip([panel(COLOURS[0])])]]
    one, two, three = (contact_sheet(rows, scales=s, side=64).height for s in ([GATE], [GATE] * 5, [GATE, RECEIVED]))
    assert one == two < three


def test_the_legend_has_the_colours_of_the_pictures_from_low_to_high() -> None:
    picture = legend(GATE, size=12, width=600)
    bar = np.asarray(picture)[: 2 * 12, : 16 * 12].astype(int)
    for row, ground in ((0, 255), (-1, 0)):
        for column, stop in zip((0, -1), np.array(palette_stops(2, ground=ground)), strict=True):
            colour = [int(stop[start : start + 2], 16) for start in (1, 3, 5)]
            assert np.abs(bar[row, column] - colour).max() <= 2
    assert (np.asarray(picture)[24:] < 128).any()  # its numbers


def test_words_are_broken_and_shortened_to_fit() -> None:
    face = font(14)
    text = "the quick brown fox jumps over the lazy dog"
    lines = wrapped(text, face, 120)
    assert width_of(lines, face) <= 120
    assert lines.split() == text.split()
    assert wrapped("one\ntwo", face, 500) == "one\ntwo"
    short = shortened("attention.layer3.blocks.17.convolution2", face, 120)
    assert width_of(short, face) <= 120
    assert "…" in short
    assert short.startswith("att")
    assert short.endswith("n2")
    assert height_of("", face) == 0
    assert height_of("a\nb", face) > 2 * 14


def test_bad_input_is_refused() -> None:
    strip = Strip([panel(COLOURS[0])])
    with pytest.raises(ValueError, match="rows must hold the same number of strips"):
        contact_sheet([[strip], [strip, strip]])
    for empty in ([], [[]], [[Strip([])]]):
        with pytest.raises(ValueError, match="rows must hold"):
            contact_sheet(empty)
    with pytest.raises(ValueError, match="headings must be one for each of the 1 columns; got 2"):
        contact_sheet([[strip]], headings=["a", "b"])
    with pytest.raises(ValueError, match="side must be at least 32"):
        contact_sheet([[strip]], side=8)
