"""Controls of the web page for layers as networks have them, unusual ones too."""

from __future__ import annotations

import pytest

from foveate.demo.choices import learnt_radius, slider
from foveate.demo.inference import Layer


@pytest.mark.parametrize(
    ("size", "radius"),
    [
        ((0, 0), None),
        ((8, 8), None),
        ((4, 7), 2.345),
        ((1, 1), 2.0),
        ((2, 2), 40.123),
        ((16, 16), 0.03),
        ((9, 9), 1e-4),
    ],
)
def test_the_slider_holds_the_radius_that_was_learned(size: tuple[int, int], radius: float | None) -> None:
    layer = Layer("layer", "ExplicitAttention2d", "", size, radius=radius)
    ends = slider(layer)
    assert 0 < ends["minimum"] < ends["maximum"]
    assert ends["minimum"] <= ends["value"] <= ends["maximum"]
    assert ends["maximum"] >= max(size)
    assert ends["value"] == learnt_radius(layer)
    if radius is not None:
        assert ends["value"] == pytest.approx(radius, abs=0.01)
