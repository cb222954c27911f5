"""Fitting the relative tables of a whole network to another image size."""

from __future__ import annotations

from torch import Tensor, nn

from foveate._checks import pair
from foveate._networks import dry_run
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
    modules = {name: m for name, m in model.named_modules() if isinstance(m, RelativeTables2d)}
    if not modules:
        raise ValueError(f"{type(model).__name__} has no relative tables: no GSA or attention-augmented module in it")
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    for name, feat_size in dry_run(model, (first.in_channels, *size), _attended_sizes).items():
        modules[name].resize(feat_size)
    return model


def _attended_sizes(twin: nn.Module, image: Tensor) -> dict[str, tuple[int, int]]:
    """Return the size of the map that each module with relative tables attends to."""
    sizes: dict[str, tuple[int, int]] = {}

    def watch(name: str, module: RelativeTables2d) -> None:
        module.qkv.register_forward_hook(lambda _, inputs, output: sizes.update({name: tuple(output.shape[2:])}))

    for name, module in twin.named_modules():
        if isinstance(module, RelativeTables2d):
            watch(name, module)
    twin(image)
    return sizes
