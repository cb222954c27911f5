"""Relative tables of a whole network at another image size, and weights saved for another."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from foveate._checks import number, pair
from foveate.functional import resize_relative_table
from foveate.models.insertion import detector_backbone, first_convolution, image_size
from foveate.models.inspection import attention_modules, dry_run, eager
from foveate.nn.relative_tables import TABLES, RelativeTables2d

__all__ = [
    "checkpoint_filter_fn",
    "relative_tables",
    "renamed",
    "resize_relative_tables",
    "scale_reach",
    "watch_tables",
]


def relative_tables(model: nn.Module) -> dict[str, RelativeTables2d]:
    """Return the modules of ``model`` that have relative tables, by name."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, RelativeTables2d) and module.tables
    }


def resize_relative_tables(model: nn.Module, img_size: int | tuple[int, int]) -> nn.Module:
    """Stretch the relative tables of every GSA and AA module of ``model``, in place, to another image size; return it.

    Without it a GSA network takes larger images too, but its positional attention stays a window of its original size.
    GSA's positional passes are sums over a line of pixels, which of the same scene at ``s`` times the resolution would
    be ``s`` times as large: its tables are divided by ``s``. (The paper's summary says nothing of other sizes.) The
    tables are new parameters: training on needs a new optimizer.

    Args:
        model: A network with such modules, or one that contains such a network (a detector, a segmentation network).
        img_size: Height and width in pixels; one integer for both. Of a detector that resizes its images, the size
            that its backbone gets.

    Examples:
        >>> network = timm.create_model("gsa_resnet_tiny", img_size=32)
        >>> foveate.resize_relative_tables(network, 64).layer1[0].conv2.feat_size
        (64, 64)
    """
    size = pair("img_size", img_size)
    network = eager(model)
    modules = relative_tables(network)
    if not modules:
        raise ValueError(f"{type(network).__name__} has no relative tables: no GSA or attention-augmented module in it")
    for name, feat_size in _attended_sizes(network, modules, size).items():
        modules[name].resize(feat_size)
    if note := getattr(network, "note_input_size", None):
        note(size)
    return model


def scale_reach(model: nn.Module, factor: float) -> nn.Module:
    """Multiply the radius of every explicit attention of ``model`` by ``factor``, in place; return it.

    For images ``factor`` times as large as those of the training, in which the objects are as much larger; a radius is
    in positions of the map. Other attention stays as it is. The radii are new parameters: training on needs a new
    optimizer.

    Examples:
        >>> network = foveate.scale_reach(timm.create_model("expatt_resnet_tiny"), 2.0)
        >>> network.layer2[0].conv2.attention.radius.item()
        4.0
    """
    number("factor", factor, above=0)
    for module in attention_modules(model).values():
        module.scale_reach(factor)
    return model


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """Fit the weights of a checkpoint to ``model``, like the functions of this name in timm.

    - Weights inside ``{"state_dict": …}`` or ``{"model": …}`` are taken out.
    - Names of version 0.1, where inserted attention stood at the root (``attention.layer3.…``), become those of
      ``model`` (``layer3.attention.…``).
    - Relative tables for another image size are stretched to those of ``model``, as `resize_relative_tables` does.

    Examples:
        >>> small, large = (timm.create_model("gsa_resnet_tiny", img_size=side) for side in (32, 64))
        >>> large.load_state_dict(foveate.checkpoint_filter_fn(small.state_dict(), large))
        <All keys matched successfully>
    """
    weights = dict(state_dict)
    for key in ("state_dict", "model"):
        if isinstance(weights.get(key), Mapping):
            weights = dict(weights[key])
    own = model.state_dict()
    fitted = {}
    for name, value in renamed(weights, model).items():
        if name.endswith(TABLES) and name in own and value.shape != own[name].shape:
            owner = model.get_submodule(name.rpartition(".")[0])
            fit = owner.fitted if isinstance(owner, RelativeTables2d) else resize_relative_table
            value = fit(value, (len(own[name]) + 1) // 2)
        fitted[name] = value
    return fitted


def renamed(weights: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Give weights of inserted attention that version 0.1 saved their names in ``model``."""
    places = sorted((name for name, _ in model.named_modules() if name.endswith("attention")), key=len)
    absent = model.state_dict().keys() - weights.keys()
    names = {}
    for name in weights:
        root, _, rest = name.partition(".")
        stage, _, parameter = rest.partition(".")
        place = next((p for p in places if p.replace(".", "_").startswith(f"{stage}_")), None)
        present = f"{place}.{parameter}"
        names[name] = present if root == "attention" and present in absent else name
    return {names[name]: value for name, value in weights.items()}


def _attended_sizes(
    model: nn.Module, modules: Mapping[str, RelativeTables2d], size: tuple[int, int]
) -> dict[str, tuple[int, int]]:
    """Return the size of the map that each module attends to, in the outermost network that takes a plain image."""
    error: ValueError | None = None
    stem = first_convolution(model)
    for prefix, network in model.named_modules():
        if detector_backbone(network) is not None:
            continue  # it resizes what it is given, and asked for is the size that its backbone gets
        inside = [name for name in modules if name.startswith(f"{prefix}." if prefix else "")]
        first = first_convolution(network)
        if len(inside) < len(modules) or stem is None or first is None or first.in_channels != stem.in_channels:
            continue  # no image gets there
        try:
            found = dry_run(network, (image_size(network)[0], *size), watch_tables)
        except ValueError as problem:
            error = error or problem
            continue
        if len(found) == len(modules):
            return {f"{prefix}.{name}" if prefix else name: feat_size for name, feat_size in found.items()}
    raise error or ValueError(
        f"no part of {type(model).__name__} that takes images as they are calls all its modules with relative "
        "tables; resize them one by one, by their own `resize`"
    )


def watch_tables(twin: nn.Module, image: Tensor) -> dict[str, tuple[int, int]]:
    """Return the sizes of the maps that modules with relative tables attend to, by name, after a pass of ``image``."""
    sizes: dict[str, tuple[int, int]] = {}

    def watch(name: str, module: RelativeTables2d) -> None:
        module.qkv.register_forward_hook(lambda _, inputs, output: sizes.update({name: tuple(output.shape[2:])}))

    for name, module in relative_tables(twin).items():
        watch(name, module)
    with warnings.catch_warnings():  # of maps larger than the tables that are about to be resized
        warnings.simplefilter("ignore", UserWarning)
        twin(image)
    return sizes
