"""What is kept of versions, also where not all is installed."""

from __future__ import annotations

import importlib.metadata

import pytest
import torch

from foveate.io import environment as file


def test_what_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = file.environment(torch.device("cpu"))
    assert whole["lightning"] == importlib.metadata.version("lightning")

    def version(package: str) -> str:
        if package == "lightning":
            raise importlib.metadata.PackageNotFoundError(package)
        return importlib.metadata.version(package)

    monkeypatch.setattr(file, "version", version)
    assert file.environment(torch.device("cpu")) == {name: text for name, text in whole.items() if name != "lightning"}
