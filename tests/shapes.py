"""Shapes in signatures, checked: jaxtyping's annotations are resolved here, and each call is held against them."""

from __future__ import annotations

import functools
import inspect
import runpy
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from beartype import BeartypeConf, beartype
from jaxtyping import TypeCheckError, jaxtyped

from foveate import _shapes, explain
from foveate import functional as FA
from foveate import nn as attention
from foveate.explain import map_similarity

__all__ = ["checked", "checked_shapes", "public_functions", "public_methods", "resolved"]

CHECKER = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""An integer is a float as well, as type checkers have it."""


def resolved(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of ``function`` as a type checker sees them, with jaxtyping's types."""
    with patch("typing.TYPE_CHECKING", True):
        shapes = runpy.run_path(str(_shapes.__file__))
    names = vars(sys.modules[function.__module__]) | {name: shapes[name] for name in _shapes.__all__}
    return inspect.get_annotations(function, eval_str=True, globals=names)


def checked(function: Callable[..., Any], annotations: dict[str, Any] | None = None) -> Callable[..., Any]:
    """Return a copy of ``function`` that raises where a call does not fit its annotations, or those given instead."""
    copy = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__, copy.__module__ = function.__kwdefaults__, function.__module__
    copy.__annotations__ = annotations or resolved(function)
    strict = jaxtyped(typechecker=CHECKER)(copy)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return strict(*args, **kwargs)
        except TypeCheckError:
            function(*args, **kwargs)  # what it refuses itself, it says itself
            raise

    return call


def public_functions() -> dict[str, Callable[..., Any]]:
    """Return the public functions of `foveate.functional` and `foveate.explain` that take or return tensors."""
    functions = {name: getattr(package, name) for package in (FA, explain, map_similarity) for name in package.__all__}
    return {n: f for n, f in functions.items() if inspect.isfunction(f) and "Tensor" in str(resolved(f))}


def public_methods() -> dict[tuple[type, str], Callable[..., Any]]:
    """Return the public methods of the classes of `foveate.nn` that take or return tensors, by class and name."""
    classes = [getattr(attention, name) for name in attention.__all__]
    methods = {(kind, name): method for kind in classes for name, method in vars(kind).items() if name[0] != "_"}
    return {at: m for at, m in methods.items() if inspect.isfunction(m) and "Tensor" in str(resolved(m))}


@contextmanager
def checked_shapes() -> Iterator[None]:
    """Check every call of the public functions and methods for the duration."""
    modules = [vars(module) for name, module in sys.modules.items() if name.partition(".")[0] in ("foveate", "tests")]
    replaced: list[tuple[Any, str, Any]] = []
    for function in public_functions().values():
        copy = checked(function)
        for names in modules:
            for name in [name for name, value in names.items() if value is function]:
                replaced.append((names, name, function))
                names[name] = copy
    for (kind, name), method in public_methods().items():
        setattr(kind, name, checked(method))
        replaced.append((kind, name, method))
    try:
        yield
    finally:
        for owner, name, original in replaced:
            if isinstance(owner, dict):
                owner[name] = original
            else:
                setattr(owner, name, original)
