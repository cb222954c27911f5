"""What the tests of files of weights have in common."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from foveate.io import NetworkMeta, save_network
from tests.io.made import network


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, nn.Module, NetworkMeta]:
    model, meta = network()
    model.train()(torch.rand(3, 3, 33, 41))  # running statistics that are not those of a new network
    path = tmp_path / "model.safetensors"
    save_network(path, model, meta)
    return path, model, meta
