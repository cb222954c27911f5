"""Argument checks whose messages say what was got, what is allowed, and how to mend it.

Every public function checks its input once, at the boundary, with these; nothing behind it checks again.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import torch

__all__ = ["confidence", "feature_map", "integer", "number", "one_of", "pair", "suggestion"]

LARGEST = 2**63 - 1


def suggestion(got: str, allowed: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` when something allowed is close to what was got, else nothing."""
    close = difflib.get_close_matches(got, list(allowed), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def one_of(name: str, value: Any, allowed: Iterable[Any]) -> Any:
    """Return ``value`` if it is among ``allowed``, else raise a `ValueError` that lists them."""
    allowed = list(allowed)
    if value not in allowed:
        words = [str(choice) for choice in allowed]
        raise ValueError(f"{name} must be one of {', '.join(words)}; got {value!r}{suggestion(str(value), words)}")
    return value


def integer(name: str, value: Any, *, minimum: int = 1) -> int:
    """Return ``value`` if it is an integer of at least ``minimum`` that 64 bits hold, else raise a `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"{name} must be an integer of at least {minimum}; got {value!r}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}; got {value}")
    if isinstance(value, int) and value > LARGEST:  # not a symbolic size
        raise ValueError(f"{name} must be at most {LARGEST}, the largest integer of 64 bits; got {value}")
    return int(value)


def number(
    name: str, value: Any, *, above: float | None = None, minimum: float | None = None, maximum: float | None = None
) -> float:
    """Return ``value`` as a float if it is a finite number within the bounds, else raise a `ValueError`."""
    bounds = [f"above {above:g}" if above is not None else "", f"at least {minimum:g}" if minimum is not None else ""]
    bounds += [f"at most {maximum:g}" if maximum is not None else ""]
    wanted = " ".join(["a finite number", " and ".join(filter(None, bounds))]).strip()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name} must be {wanted}; got {value!r}")
    try:
        value = float(value)
    except OverflowError:  # a whole number beyond all of 64 bits
        value = float("inf")
    inside = value - value == 0  # neither NaN nor infinite
    inside = inside and (above is None or value > above) and (minimum is None or value >= minimum)
    if not (inside and (maximum is None or value <= maximum)):
        raise ValueError(f"{name} must be {wanted}; got {value!r}")
    return value


def confidence(value: Any) -> None:
    """Raise a `ValueError` unless ``value``, the coverage of an interval, is between 0 and 1, both excluded."""
    if number("confidence", value, above=0) >= 1:
        raise ValueError(f"confidence must be below 1; got {value:g}. For 95 % pass 0.95")


def pair(name: str, value: Any, *, minimum: int = 1) -> tuple[int, int]:
    """Return ``value`` as ``(height, width)``; a single integer is both."""
    if isinstance(value, Integral):
        value = (value, value)
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(f"{name} must be one integer or (height, width); got {value!r}")
    return integer(name, value[0], minimum=minimum), integer(name, value[1], minimum=minimum)


def feature_map(x: torch.Tensor, channels: int, owner: str) -> None:
    """Check that ``x`` is a floating-point ``(B, channels, H, W)`` of at least one pixel, else raise a `ValueError`."""
    if not torch.jit.is_scripting():  # which cannot write such messages
        _feature_map(x, channels, owner)


def _feature_map(x: torch.Tensor, channels: int, owner: str) -> None:
    if x.ndim != 4:
        raise ValueError(f"{owner} takes a feature map (B, {channels}, H, W); got shape {tuple(x.shape)}")
    if torch.jit.is_tracing():  # sizes are tensors, which are not to be looked at
        return
    if x.shape[1] != channels:
        raise ValueError(
            f"{owner} was built for {channels} channels; got {x.shape[1]} in shape {tuple(x.shape)}. "
            f"Build it with {x.shape[1]} input channels, or pass (B, {channels}, H, W)"
        )
    if not x.is_floating_point():
        raise ValueError(f"{owner} takes a floating-point feature map; got {x.dtype}. Convert it with x.float()")
    if x.shape[2] == 0 or x.shape[3] == 0:
        raise ValueError(f"{owner} takes a map of at least 1×1 pixels; got shape {tuple(x.shape)}")
