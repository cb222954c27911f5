"""Building a network by name, with errors that name the remedy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import timm
from torch import Tensor, nn

from foveate import _checks
from foveate.models.inspection import FAILURES, dry_run
from foveate.models.packaged import PACKAGED, packaged_weights

__all__ = [
    "FETCHING",
    "GIVEN",
    "UnknownKeywordError",
    "build_network",
    "check_classifier",
    "create_network",
    "keywords",
    "sized",
]

GIVEN = ("num_classes", "in_chans", "features_only")
"""Keywords of a network that follow from the task."""
FETCHING = ("cache_dir", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay")
"""Keywords of `timm.create_model` that name files and addresses; recipes and checkpoints may not set them."""


def check_classifier(name: str, network: nn.Module, *, num_classes: int, img_size: tuple[int, int]) -> None:
    """Raise a `ValueError` unless ``network`` turns a color image of ``img_size`` into ``num_classes`` logits."""
    output = dry_run(network, (3, *img_size), lambda twin, image: twin(image), name=name)
    if not isinstance(output, Tensor) or output.shape != (1, num_classes):
        got = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise ValueError(
            f"{name} gives {got} for one image, where a classifier of {num_classes} classes gives {(1, num_classes)}; "
            "give other model_args, or another network"
        )


def build_network(
    name: str,
    *,
    num_classes: int,
    in_chans: int = 3,
    img_size: tuple[int, int],
    pretrained: bool = False,
    model_args: Mapping[str, Any] | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Create the network ``name`` with `timm.create_model` for given images; return it and the keywords used.

    Only networks with the keyword ``img_size`` (those with global attention or position embeddings) are given it; plain
    convolutional networks take images of any size. Errors are those of `create_network`.
    """
    kwargs = keywords(num_classes, in_chans, model_args)
    return sized(lambda given: create_network(name, given, pretrained=pretrained), kwargs, img_size)


def keywords(num_classes: int, in_chans: int, model_args: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the keywords of a network; a `ValueError` names those of ``model_args`` that follow from the task."""
    for keyword in GIVEN:
        if keyword in (model_args or {}):
            raise ValueError(f"model_args cannot set {keyword}: it follows from the task; leave it out")
    return {"num_classes": num_classes, "in_chans": in_chans, **(model_args or {})}


def sized(
    create: Callable[[dict[str, Any]], nn.Module], kwargs: Mapping[str, Any], img_size: tuple[int, int]
) -> tuple[nn.Module, dict[str, Any]]:
    """Return what ``create`` makes of ``kwargs`` with ``img_size``, without it if that is unknown, and the keywords."""
    with_size = {"img_size": img_size, **kwargs}
    try:
        return create(with_size), with_size
    except UnknownKeywordError as error:
        if "'img_size'" not in str(error) or "img_size" in kwargs:
            raise
    return create(dict(kwargs)), dict(kwargs)


class UnknownKeywordError(ValueError):
    """Error for a keyword that a network does not have."""


def create_network(name: str, kwargs: Mapping[str, Any], *, pretrained: bool = False) -> nn.Module:
    """Call `timm.create_model`, and turn its errors for bad input into a `ValueError` that names the remedy.

    Pretrained weights are those of an installed package, see `foveate.models.packaged`, before those that timm fetches.
    """
    if not timm.is_model(name):
        close = _checks.suggestion(name, timm.list_models())
        raise ValueError(f"unknown model {name!r}{close or '; `foveate models` lists those that there are'}")
    for keyword in FETCHING:
        if keyword in kwargs:
            raise ValueError(f"{keyword} of model {name} names what timm would load; leave it out")
    source: dict[str, Any] = {}
    if pretrained and name in PACKAGED and PACKAGED[name].is_installed():
        source["pretrained_cfg_overlay"] = {"state_dict": packaged_weights(name)}
    try:
        network: Any = timm.create_model(name, pretrained=pretrained, **source, **kwargs)
    except TypeError as error:
        raise UnknownKeywordError(f"model {name} does not take these arguments: {error}") from error
    except FAILURES as error:
        reason = f"{type(error).__name__}: {error}"  # of a KeyError, the message alone is a bare word
        raise ValueError(f"model {name} cannot be built with {dict(kwargs)}: {reason}") from error
    if source:
        network.pretrained_cfg["state_dict"] = None  # which timm would keep
    return network
