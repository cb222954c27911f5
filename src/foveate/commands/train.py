"""``foveate train``: one network, on one set of images."""

from __future__ import annotations

from typing import Any

from foveate.training import TrainConfig, train_network

__all__ = ["TrainConfig", "run"]


def run(config: TrainConfig) -> dict[str, Any]:
    """Train the network; see `foveate.training.train_network`."""
    return train_network(config)
