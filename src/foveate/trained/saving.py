"""Saving a `TrainedNetwork` in a folder."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch

from foveate._paths import expanded
from foveate.io import load_network, save_network
from foveate.io.checkpoint import WEIGHTS
from foveate.io.files import writable_folder

if TYPE_CHECKING:
    from foveate.trained.network import TrainedNetwork

__all__ = ["save_trained"]


def save_trained(trained: TrainedNetwork, folder: Path) -> None:
    """Do what `TrainedNetwork.save` does."""
    folder = expanded(folder).resolve()
    there = folder.exists()
    if there and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"{folder} is there already, with something in it; give a new folder")
    with TemporaryDirectory(dir=writable_folder(folder if there else folder.parent), prefix=".") as around:
        built = Path(around) / folder.name
        built.mkdir()
        save_network(built / WEIGHTS, trained.network, trained.meta)
        try:
            with torch.random.fork_rng(devices=[]):  # building one draws weights
                load_network(built / WEIGHTS)
        except ValueError as error:
            raise ValueError(
                f"the network is not the {trained.meta.model} that it was loaded as, and could not be loaded again; "
                "register the changed one with timm.models.register_model, and save it under that name with "
                "foveate.io.save_network"
            ) from error
        if there:
            (built / WEIGHTS).replace(folder / WEIGHTS)
        else:
            built.replace(folder)
