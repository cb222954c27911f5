"""Keywords of the classes of other libraries, many of which pass over what they do not know."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any

__all__ = ["keywords_of"]


def keywords_of(function: Callable[..., Any], *, but: Collection[str] = ()) -> tuple[str, ...]:
    """Return the names of the parameters of ``function``, apart from those in ``but``."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(function).parameters
    return tuple(name for name, one in parameters.items() if one.kind in kinds and name not in ("self", *but))
