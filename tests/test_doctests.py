"""Every public class and function has an example, and every example is true."""

from __future__ import annotations

import doctest
import inspect
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import foveate
from foveate import explain, functional, models, nn

NAMES: dict[str, Any] = {"FA": functional, "Image": Image, "foveate": foveate, "np": np, "timm": timm, "torch": torch}
"""What an example may use without importing it."""
PUBLIC = {
    f"{package.__name__}.{name}": value
    for package in (nn, functional, models, explain)
    for name in package.__all__
    if inspect.isclass(value := getattr(package, name)) or inspect.isfunction(value)
}


def example(value: Any, name: str) -> doctest.DocTest:
    """Return the example in the docstring of ``value`` itself, with names of its own."""
    return doctest.DocTestParser().get_doctest(value.__doc__ or "", dict(NAMES), name, None, None)


@pytest.mark.parametrize("name", PUBLIC)
def test_example(name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    test = example(PUBLIC[name], name)
    lines = sum(len(f"{each.source}{each.want}".splitlines()) for each in test.examples)
    assert 2 <= lines <= 6, f"{name} has an example of {lines} lines"
    said: list[str] = []
    failed = doctest.DocTestRunner().run(test, out=said.append).failed
    assert not failed, "".join(said)


def test_a_name_without_an_example_is_seen() -> None:
    assert not example(example, "undocumented").examples
