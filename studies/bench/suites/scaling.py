"""Time and memory against the side of the map: modules alone, and whole networks."""

from __future__ import annotations

from studies.bench.subject import Case, Suite
from studies.bench.suites.cram import cram
from studies.bench.suites.expatt import explicit
from studies.bench.suites.gsa import conv3x3, gsa, gsa_pytorch, softmax_attention
from studies.bench.suites.networks import network

__all__ = ["SUITE"]

SIDES = (7, 14, 28, 56, 112, 224, 448, 512, 1024, 2048)
NETWORK_SIDES = (224, 448, 1024, 2048)
NETWORKS = ("resnet50", "gsa_resnet50", "expatt_resnet50", "cram_resnet50", "aa_resnet50")
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


def _networks(side: int) -> Case:
    return Case(
        f"networks {side}×{side}",
        (3, side, side),
        tuple(network(name, side) for name in NETWORKS),
        group="whole networks",
        network=True,
    )


SUITE = Suite(
    "scaling",
    "Time and memory against the side of the map",
    (
        "One image. A point is left out if its memory, told from the shapes, or its time, told from the last point, "
        "would be over the limits.",
    ),
    (*map(_narrow, SIDES), *map(_wide, SIDES), *map(_networks, NETWORK_SIDES)),
    batch_size=1,
    by_side=True,
)
