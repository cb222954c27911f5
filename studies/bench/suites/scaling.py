"""Time and memory of modules against the side of the map; `networks.LARGE` has whole networks."""

from __future__ import annotations

from studies.bench.subject import Case, Suite
from studies.bench.suites.cram import cram
from studies.bench.suites.expatt import explicit
from studies.bench.suites.gsa import conv3x3, gsa, gsa_pytorch, softmax_attention

__all__ = ["SUITE"]

SIDES = (7, 14, 28, 56, 112, 224, 448, 512, 1024, 2048)
NARROW, WIDE = 16, 64
"""Channels: as many as attend in ExpAtt's networks, and as many as there are in GSA's first stage."""


def _narrow(side: int) -> Case:
    return Case(
        f"{side}×{side}×{NARROW}",
        (NARROW, side, side),
        (
            explicit("gaussian"),
            explicit("laplace"),
            conv3x3(NARROW),
            softmax_attention(NARROW, num_heads=1),
        ),
        group=f"{NARROW} channels",
    )


def _wide(side: int) -> Case:
    return Case(
        f"{side}×{side}×{WIDE}",
        (WIDE, side, side),
        (
            gsa(side, WIDE),
            gsa_pytorch(side, WIDE),
            conv3x3(WIDE),
            softmax_attention(WIDE),
            cram(WIDE),
        ),
        group=f"{WIDE} channels",
    )


SUITE = Suite(
    "scaling",
    "Time and memory against the side of the map",
    (
        "One image. A point is left out if its memory, told from the shapes, or its time, told from the last point, "
        "would be over the limits.",
    ),
    (*map(_narrow, SIDES), *map(_wide, SIDES)),
    batch_size=1,
    by_side=True,
)
