"""Whole networks: those with attention against the plain ResNet-50, and what inserted gates add to three networks."""

from __future__ import annotations

from typing import Any

import timm
from timm.layers.cbam import SpatialAttn
from torch import nn

from foveate.models import insert, registered
from foveate.models.building import build_network
from studies.bench.references import itself, network_reference, unfused_reference
from studies.bench.subject import Case, Reference, Subject, Suite

__all__ = ["LARGE", "NETWORKS", "OVERHEAD", "SMALL", "network"]

CLASSES = 1000
SIDE = 224
MAX_SIDE_BY_MAPS = 224
"""Of images for which a network's maps are formed, N×N for N of up to a sixteenth of the pixels."""

COMPARED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("resnet50", {}),
    ("gsa_resnet50", {}),
    ("expatt_resnet50", {}),
    ("expatt_resnet50", {"value_ratio": 0.125}),
    ("aa_resnet50", {}),
    ("aa_resnet50", {"half_resolution": False}),
)
"""Networks and their keywords; the first is the base."""

JOINED = ("resnet50", "efficientnet_b0", "mobilenetv3_large_100")


def network(name: str, side: int, classes: int = CLASSES, **model_args: Any) -> Subject:
    """Return a network that is built for images of ``side``."""

    def build() -> nn.Module:
        built, _ = build_network(name, num_classes=classes, img_size=(side, side), model_args=model_args)
        return built

    keywords = ", ".join(f"{key}={value}" for key, value in model_args.items())
    return Subject(f"{name} ({keywords})" if keywords else name, build, _reference(name, side))


def _reference(name: str, side: int) -> Reference:
    if name not in registered():
        return itself()
    return network_reference() if side <= MAX_SIDE_BY_MAPS else unfused_reference()


def _with_cbam(base: str) -> Subject:
    def gate(channels: int, **factory: Any) -> nn.Module:
        return SpatialAttn(**factory)

    def build() -> nn.Module:
        return insert(timm.create_model(base, num_classes=CLASSES), gate)

    return Subject(f"{base} with CBAM SpatialAttn", build, itself())


NETWORKS = Suite(
    "networks",
    "Whole networks against ResNet-50",
    (
        "value_ratio=0.125 gives ExpAtt channel counts that are multiples of 16; with the paper's 0.1 they are 12, 25 "
        "and 51.",
        "half_resolution=False: AA attends at the full resolution of 28×28 too, with N×N maps.",
    ),
    (
        Case(
            f"{SIDE}×{SIDE}",
            (3, SIDE, SIDE),
            tuple(network(name, SIDE, **model_args) for name, model_args in COMPARED),
            network=True,
        ),
    ),
)

OVERHEAD = Suite(
    "overhead",
    "What an inserted gate adds to a network",
    ("Each gate stands behind the last stage but one.",),
    tuple(
        Case(
            base,
            (3, SIDE, SIDE),
            (
                network(base, SIDE),
                *(network(f"{kind}_{base}", SIDE) for kind in ("cram", "positionwise")),
                _with_cbam(base),
            ),
            network=True,
        )
        for base in JOINED
    ),
)

SMALL = Suite(
    "small",
    "Small networks, whose time goes into calls as much as into arithmetic",
    ("One bottleneck a stage, maps of 32×32, 16×16, 8×8 and 4×4 positions, 10 classes: the networks of the digits.",),
    (
        Case(
            "32×32",
            (3, 32, 32),
            tuple(
                network(f"{kind}_resnet_tiny", 32, classes=10)
                for kind in ("conv", "expatt", "gsa", "aa", "cram", "positionwise")
            ),
            network=True,
        ),
    ),
    batch_size=64,
)

LARGE = Suite(
    "large",
    "Time and memory of whole networks against the side of the image",
    (
        "One image. A point is left out if its memory, told from the shapes, or its time, told from the last point, "
        "would be over the limits.",
    ),
    tuple(
        Case(
            f"{side}×{side}",
            (3, side, side),
            tuple(
                network(name, side)
                for name in ("resnet50", "gsa_resnet50", "expatt_resnet50", "cram_resnet50", "aa_resnet50")
            ),
            group="whole networks",
            network=True,
        )
        for side in (224, 448, 1024, 2048)
    ),
    batch_size=1,
    by_side=True,
)
