"""Fitting the relative tables of a whole network to another image size."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foveate._checks import pair
from foveate._networks import evaluating
from foveate.nn._tables import RelativeTables2d

__all__ = ["resize_relative_tables"]


def resize_relative_tables(model: nn.Module, img_size: int | tuple[int, int]) -> nn.Module:
    """Stretch the relative tables of every GSA and AA module to the maps that they see at another image size.

    Without it a GSA network takes larger images too, but its positional attention stays a window of the size that it
    was made for. Training on from here needs a new optimiser: the tables are new parameters.

    Args:
        model: A network with such modules; changed in place.
        img_size: Height and width in pixels; one integer for both.

    Returns:
        ``model``.

    Raises:
        ValueError: ``img_size`` is not a size, or ``model`` has no relative tables.
    """
    size = pair("img_size", img_size)
    modules = [m for m in model.modules() if isinstance(m, RelativeTables2d)]
    if not modules:
        raise ValueError(f"{type(model).__name__} has no relative tables: no GSA or attention-augmented module in it")
    seen: dict[nn.Module, tuple[int, int]] = {}

    def note(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        seen[module] = (output.shape[2], output.shape[3])

    handles = [module.qkv.register_forward_hook(note) for module in modules]
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    try:
        with evaluating(model), torch.no_grad():
            model(first.weight.new_zeros(1, first.in_channels, *size))
    finally:
        for handle in handles:
            handle.remove()
    for module in modules:
        module.resize(seen[module.qkv])
    return model
