"""The gates alone: CRAM's rectangle, its position-wise counterpart, and the spatial gate of CBAM."""

from __future__ import annotations

from functools import partial

from timm.layers.cbam import SpatialAttn

from foveate.nn import PositionwiseAttention2d, RectangularAttention2d
from studies.bench.references import gate_reference
from studies.bench.subject import Case, Subject, Suite

__all__ = ["SUITE", "cram"]

SHAPES = ((14, 1024), (7, 2048))
"""The last two stages of a ResNet-50 at 224×224."""


def cram(channels: int) -> Subject:
    """Return CRAM's module."""
    return Subject("CRAM", partial(RectangularAttention2d, channels), gate_reference())


def _case(side: int, channels: int) -> Case:
    return Case(
        f"{side}×{side}×{channels}",
        (channels, side, side),
        (
            cram(channels),
            Subject("position-wise", partial(PositionwiseAttention2d, channels), gate_reference()),
            Subject("timm CBAM SpatialAttn", SpatialAttn),
        ),
    )


SUITE = Suite(
    "cram",
    "Gates on a feature map",
    ("All multiply the map by one value per position; CBAM's comes from two channels, ours from all.",),
    tuple(_case(*shape) for shape in SHAPES),
)
