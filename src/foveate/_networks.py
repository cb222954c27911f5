"""Handling a network from outside: building it by name, finding its attention, leaving it as it was found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import timm
from torch import nn

from foveate import _checks

__all__ = ["attention_modules", "build_network", "create_network", "evaluating"]


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
        ValueError: No such network (with the nearest name), or it does not take ``kwargs``.
    """
    if not timm.is_model(name):
        close = _checks.suggestion(name, timm.list_models())
        raise ValueError(f"unknown model {name!r}{close or '; `foveate models` lists those that there are'}")
    try:
        return timm.create_model(name, pretrained=pretrained, **kwargs)
    except TypeError as error:
        raise _UnknownKeywordError(f"model {name} does not take these arguments: {error}") from error
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"model {name} cannot be built with {dict(kwargs)}: {error}") from error
