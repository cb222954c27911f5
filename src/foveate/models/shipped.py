"""Trained networks whose weights come with the library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from foveate._checks import one_of

__all__ = ["ALIASES", "TRAININGS", "shipped"]

WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Training:
    """Data that several networks were trained on, and how images are prepared for them, as their model cards say."""

    networks: tuple[str, ...]
    configuration: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keywords by which the networks were built."""
    backbone: str | None = None
    """Weights of a package of which the files hold only what differs; None if they hold all."""


SYNSETS = (
    *(1443537, 1784675, 2002724, 2123045, 2231487, 2410509, 2669723, 2814533, 2909870, 3026506),
    *(3255030, 3584254, 3770439, 3937543, 4070727, 4259630, 4398044, 4532670, 7615774, 7871810),
)
"""WordNet numbers of the classes of the photographs."""

FLOWERS = """
    alpine sea holly, anthurium, artichoke, azalea, ball moss, balloon flower, barbeton daisy, bearded iris, bee
    balm, bishop of llandaff, black-eyed susan, blackberry lily, blanket flower, bolero deep blue,
    bougainvillea, buttercup, californian poppy, camellia, canna lily, canterbury bells, cape flower, carnation,
    cautleya spicata, clematis, colt's foot, common dandelion, corn poppy, cyclamen, daffodil, desert-rose,
    english marigold, fire lily, foxglove, fritillary, garden phlox, gaura, gazania, geranium, giant white arum
    lily, globe thistle, globe-flower, grape hyacinth, great masterwort, hard-leaved pocket orchid, hibiscus,
    hippeastrum, king protea, lenten rose, lotus lotus, love in the mist, magnolia, mallow, marigold, mexican
    aster, mexican petunia, monkshood, moon orchid, morning glory, orange dahlia, osteospermum, oxeye daisy,
    passion flower, pelargonium, peruvian lily, petunia, pincushion flower, pink-yellow dahlia, primula, prince
    of wales feathers, purple coneflower, rose, ruby-lipped cattleya, siam tulip, silverbush, snapdragon, spear
    thistle, spring crocus, stemless gentian, sunflower, sweet pea, sword lily, tiger lily, toad lily, tree
    mallow, tree poppy, wallflower, wild pansy, windflower, yellow iris
"""
"""Classes of Oxford Flowers, those of which the training had photographs."""

TRAININGS: dict[str, Training] = {
    "digits": Training(  # recipes/shipped.yaml
        ("conv_resnet_tiny", "expatt_resnet_tiny", "gsa_resnet_tiny", "positionwise_resnet_tiny", "cram_resnet_tiny"),
        {
            "num_classes": 10,
            "mean": (0.14, 0.14, 0.14),
            "std": (0.31, 0.31, 0.31),
            "crop_pct": 1.0,
            "interpolation": "bilinear",
            "label_names": tuple("0123456789"),
        },
    ),
    "photographs": Training(  # recipes/photographs.yaml, the first seed; CRAM with the equivariance term
        ("expatt_resnet_tiny", "gsa_resnet_tiny", "cram_resnet_tiny"),
        {
            "num_classes": 20,
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "crop_pct": 1.0,
            "interpolation": "bicubic",
            "label_names": tuple(f"n{synset:08d}" for synset in SYNSETS),
        },
    ),
    "flowers": Training(  # recipes/flowers, with the equivariance term
        ("cram_tf_efficientnet_lite0",),
        {
            "num_classes": 89,
            "input_size": (3, 160, 160),
            "label_names": tuple(" ".join(FLOWERS.split()).split(", ")),
        },
        options={"hidden": 128},
        backbone="tf_efficientnet_lite0",
    ),
}
"""By the tag in ``cram_resnet_tiny.digits``."""
ALIASES = {"cram_efficientnet_lite0.flowers": "cram_tf_efficientnet_lite0.flowers"}
"""Other names under which `foveate.load` finds the networks: without the prefix by which timm tells paddings apart."""


def shipped(tag: str | None = None) -> dict[str, Path]:
    """Return the files of the weights that come with the library, by the name that `timm.create_model` takes.

    ``timm.create_model("cram_resnet_tiny.digits", pretrained=True)`` loads such weights; beside each file lies its
    model card. ``tag`` is ``digits`` (cluttered digits of 32×32 pixels) or ``photographs`` (20 classes of Tiny ImageNet
    at 32×32), or ``flowers`` (89 classes of Oxford Flowers at 160×160, for which the extra ``photos`` has the weights
    that the file lacks); all by default.

    Examples:
        >>> list(foveate.models.shipped("photographs"))[-1]
        'cram_resnet_tiny.photographs'
    """
    tags = TRAININGS if tag is None else (one_of("tag", tag, tuple(TRAININGS)),)
    names = [f"{network}.{each}" for each in tags for network in TRAININGS[each].networks]
    return {name: WEIGHTS / f"{name}.safetensors" for name in names}
