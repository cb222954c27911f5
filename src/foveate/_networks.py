"""Handling a network from outside: building it by name, finding its attention, leaving it as it was found."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import timm
import torch
from torch import Tensor, nn

from foveate import _checks

__all__ = [
    "attention_modules",
    "build_network",
    "check_classifier",
    "create_network",
    "dry_run",
    "evaluating",
    "feature_stages",
    "gates",
    "meta_copy",
    "unshared",
]

Result = TypeVar("Result")

GIVEN = ("num_classes", "in_chans", "features_only")
"""Keywords of a network that follow from the task, and are nobody's to choose."""
FETCHING = ("cache_dir", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay")
"""Keywords of `timm.create_model` that name files and addresses to load from. A recipe or a checkpoint may not."""
FAILURES = (AssertionError, AttributeError, LookupError, RuntimeError, TypeError)
"""What networks raise for keywords and images that they do not take, besides a `ValueError`."""


def attention_modules(network: nn.Module) -> dict[str, nn.Module]:
    """Return the attention modules of ``network`` by name, in order: those with an ``attention_map``.

    Of nested ones the innermost counts: an augmented convolution that delegates to an attention module is
    represented by that module alone.
    """
    found = {name: module for name, module in network.named_modules() if hasattr(module, "attention_map")}
    return {
        name: module
        for name, module in found.items()
        if not any(other.startswith(f"{name}." if name else "") for other in found if other != name)
    }


def gates(network: nn.Module) -> dict[str, nn.Module]:
    """Return those attention modules of ``network`` that weigh positions, rather than mix the values at them."""
    return {name: module for name, module in attention_modules(network).items() if not hasattr(module, "values")}


def feature_stages(network: nn.Module) -> list[str]:
    """Return the names of the modules that put out the stages of timm's ``feature_info``; none for other networks."""
    info = getattr(network, "feature_info", None) or []
    return [stage["module"] for stage in getattr(info, "info", info)]


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put ``network`` in evaluation mode for the duration, then every module back in the mode that it had."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def unshared(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``state`` with a copy for each tensor but the first of those that share memory.

    Safetensors refuses the others; and under each name, as timm's strict loading needs it, nothing is missing.
    """
    places: set[int] = set()
    copied = {}
    for name, tensor in state.items():
        place = tensor.untyped_storage().data_ptr()
        copied[name] = tensor.clone() if place in places else tensor
        places.add(place)
    return copied


def meta_copy(network: nn.Module) -> nn.Module:
    """Copy ``network`` onto the meta device without copying its weights: deepcopy finds them in the memo."""
    memo: dict[int, Any] = {}
    for parameter in network.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
    for buffer in network.buffers():
        memo[id(buffer)] = buffer.to("meta")
    return copy.deepcopy(network, memo)


def dry_run(
    network: nn.Module,
    input_size: tuple[int, int, int],
    run: Callable[[nn.Module, Tensor], Result],
    *,
    name: str | None = None,
) -> Result:
    """Return ``run(twin, image)`` for a copy of ``network`` in evaluation mode and one image, both on the meta device.

    Nothing is computed there and no activation allocated; ``network`` is not touched.

    Args:
        network: Any network that takes one ``(B, C, H, W)`` batch.
        input_size: ``(channels, height, width)`` of the image.
        run: What to do with the two.
        name: What messages call the network; by default its class.

    Raises:
        ValueError: The network does not take such an image.
    """
    twin = meta_copy(network).eval()
    dtype = next((p.dtype for p in twin.parameters() if p.is_floating_point()), torch.float32)
    image = torch.empty(1, *input_size, device="meta", dtype=dtype)
    try:
        with torch.no_grad():
            return run(twin, image)
    except (ValueError, *FAILURES) as error:
        raise ValueError(
            f"{name or type(network).__name__} does not take an image of {'×'.join(map(str, input_size))}: {error}; "
            "give the channels and the size (img_size) that it was built for, or other keywords"
        ) from error


def check_classifier(name: str, network: nn.Module, *, num_classes: int, img_size: tuple[int, int]) -> None:
    """Raise a `ValueError` unless ``network`` turns a colour image of ``img_size`` into ``num_classes`` logits."""
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

    ``img_size`` reaches those networks that take it (those with global attention or position embeddings); plain
    convolutional networks, which take any size, do not know the keyword and are built without.

    Raises:
        ValueError: No such network (with the nearest name), or it does not take ``model_args``.
    """
    for keyword in GIVEN:
        if keyword in (model_args or {}):
            raise ValueError(f"model_args cannot set {keyword}: it follows from the task; leave it out")
    kwargs = {"num_classes": num_classes, "in_chans": in_chans, **(model_args or {})}
    sized = {"img_size": img_size, **kwargs}
    try:
        return create_network(name, sized, pretrained=pretrained), sized
    except _UnknownKeywordError as error:
        if "'img_size'" not in str(error) or "img_size" in kwargs:
            raise
    return create_network(name, kwargs, pretrained=pretrained), kwargs


class _UnknownKeywordError(ValueError):
    """A network was given a keyword that it does not have."""


def create_network(name: str, kwargs: Mapping[str, Any], *, pretrained: bool = False) -> nn.Module:
    """Call `timm.create_model`, and turn what it raises for bad input into a `ValueError` that mends.

    Raises:
        ValueError: No such network (with the nearest name), or it does not take ``kwargs``, or they name a file.
    """
    if not timm.is_model(name):
        close = _checks.suggestion(name, timm.list_models())
        raise ValueError(f"unknown model {name!r}{close or '; `foveate models` lists those that there are'}")
    for keyword in FETCHING:
        if keyword in kwargs:
            raise ValueError(f"{keyword} of model {name} names what timm would load; leave it out")
    try:
        return timm.create_model(name, pretrained=pretrained, **kwargs)
    except TypeError as error:
        raise _UnknownKeywordError(f"model {name} does not take these arguments: {error}") from error
    except FAILURES as error:
        reason = f"{type(error).__name__}: {error}"  # of a KeyError, the message alone is a bare word
        raise ValueError(f"model {name} cannot be built with {dict(kwargs)}: {reason}") from error
