"""All combinations of several axes, of which `make test` tries a few and `make test-all` every one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import pytest

__all__ = ["in_turn"]


def in_turn(*axes: Iterable[Any]) -> list[Any]:
    """Return all combinations for ``parametrize``; all are exhaustive but as many as the longest axis has values.

    Those are the first values together, the second ones, and so on, a shorter axis beginning anew: each value of each
    axis once or more. For axes that the code under test treats independently of one another.
    """
    values = [list(axis) for axis in axes]
    chosen = {tuple(k % len(axis) for axis in values) for k in range(max(map(len, values)))}
    places = itertools.product(*(range(len(axis)) for axis in values))
    return [
        pytest.param(
            *(axis[at] for axis, at in zip(values, place, strict=True)),
            marks=[] if place in chosen else [pytest.mark.exhaustive],
        )
        for place in places
    ]
