"""Insertion of an attention module behind any stage or module of a convolutional network."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from foveate._checks import pair, suggestion
from foveate.models.inspection import FAILURES, RefusedError, dry_run, feature_stages, meta_copy
from foveate.models.places import NAME, following, places, works

__all__ = ["detector_backbone", "fixed_size", "image_size", "in_backbone", "insert", "resolve"]


def insert(
    model: nn.Module,
    attention: Callable[..., nn.Module],
    at: int | str = -2,
    *,
    img_size: int | tuple[int, int] | None = None,
    **options: Any,
) -> nn.Module:
    """Attend to the output of one stage or module of ``model``, in place; return ``model``.

    The module is registered where it computes: whatever is done with that part of the network (moved, frozen, saved,
    wrapped, replaced) is done with its attention. Candidates are tried in this order, on a copy on the ``meta`` device;
    the first that the network calls exactly once, with that output, and on which its result depends is taken:

    1. the last child of the stage itself, ``<stage>.attention``, where the stage calls its children in turn;
    2. the last child of the part of the stage that puts out the same tensor (``stages.2.blocks.attention``);
    3. beside a layer without weights, both in an `nn.Sequential` in its place (``features.8.attention``);
    4. a child of a module that has a ``forward`` of its own, the class of which becomes one that attends to its output;
    5. the first child of the sequence that follows in an `nn.Sequential`;
    6. right behind a layer with weights, as ``<layer>_attention`` in the `nn.Sequential` that holds it.

    The network's own parameters keep their names, so its checkpoints still load; load pretrained weights first
    (``timm.create_model(…, pretrained=True)``). Where the output is several maps (the stages of HRNet), each gets a
    module of its own.

    Args:
        model: Any timm convolutional network, or any network with NCHW feature maps if ``at`` is a name, which in
            torchvision's detectors is one within their ``backbone``.
        attention: A module class such as `foveate.nn.RectangularAttention2d` or `foveate.nn.PositionwiseAttention2d`;
            called as ``attention(channels, **options, device=…, dtype=…)``.
        at: Index into ``model.feature_info`` (−2, the default: the last stage but one), or the name of a module
            as in ``model.named_modules()``.
        img_size: Height and width of the images that it is tried with, by default those that a network of timm's was
            built for, else 224; for a network that takes one size alone.
        **options: Passed on to ``attention``; one called ``img_size`` by `functools.partial`.

    Raises:
        ValueError: ``at`` names nothing, or a module that does not return NCHW maps, has attention already, or behind
            which attention would be skipped in some calls; the model is unchanged then.

    Examples:
        >>> network = foveate.insert(timm.create_model("resnet18"), foveate.nn.RectangularAttention2d, at=-2)
        >>> type(network.layer3.attention).__name__
        'RectangularAttention2d'
    """
    if (backbone := detector_backbone(model)) is not None:
        img_size = fixed_size(model) if img_size is None else img_size
        insert(backbone, attention, in_backbone(at), img_size=img_size, **options)
        return model
    name = resolve(model, at)
    size = image_size(model, img_size)
    maps = dry_run(model, size, lambda twin, image: _outputs(twin, name, image))
    channels = [x.shape[1] for x in maps]
    _check_channels_first(model, name, maps, size)
    parameters = (*model.get_submodule(name).parameters(), *model.parameters())
    like = next((p for p in parameters if p.is_floating_point()), torch.empty(0))
    placed = {"device": like.device, "dtype": like.dtype}
    try:
        modules = [attention(number, **options, **placed) for number in channels]
    except TypeError as error:
        raise ValueError(
            f"attention must be a class called as attention(channels, **options, device=…, dtype=…); {attention!r} "
            f"cannot be called so{f' with {known}' if (known := ', '.join(options)) else ''}: {error}"
        ) from error
    for one, x in zip(modules, maps, strict=True):
        _check_shape(one, x)
    module = modules[0] if len(modules) == 1 else ForEach(modules)
    for place in places(model, name, size):
        if dry_run(model, size, lambda twin, image, place=place: works(twin, place, image, channels)):  # type: ignore[misc]
            place.put(model, module.train(model.training))
            return model
    raise ValueError(
        f"attention behind {name!r} would not be computed in a pass of {type(model).__name__}, or nothing would "
        "depend on it: the network calls parts of it by themselves; choose the stage around it, or another module"
    )


def detector_backbone(model: nn.Module) -> nn.Module | None:
    """Return the backbone of one of torchvision's detectors: the part that takes a batch of images as any network."""
    backbone, transform = getattr(model, "backbone", None), getattr(model, "transform", None)
    if not isinstance(backbone, nn.Module) or transform is None:
        return None
    from torchvision.models.detection.transform import GeneralizedRCNNTransform  # only where there may be one

    return backbone if isinstance(transform, GeneralizedRCNNTransform) else None


def fixed_size(detector: nn.Module) -> tuple[int, int] | None:
    """Return height and width of all images that the backbone of a detector gets, if they are the same (SSD)."""
    size = getattr(detector.transform, "fixed_size", None)
    return None if size is None else (size[1], size[0])


def in_backbone(at: int | str) -> int | str:
    """Return what a place in a detector is called in its backbone."""
    if isinstance(at, str) and not at.startswith("backbone."):
        raise ValueError(
            f"at={at!r} is not in the detector's backbone, the part that takes a batch of images; name a module as in "
            "at='backbone.body.layer3'"
        )
    return at.removeprefix("backbone.") if isinstance(at, str) else at


class ForEach(nn.ModuleList):
    """List of modules, each applied to one of several maps."""

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Return the attended maps."""
        return [module(x) for module, x in zip(self, maps, strict=True)]


def _check_shape(attention: nn.Module, x: Tensor) -> None:
    """Raise a `ValueError` unless attention to a map, on the meta device, is a map of the same shape."""
    if not isinstance(attention, nn.Module):
        raise ValueError(f"attention must be a module; got {type(attention).__name__}")
    try:
        with torch.no_grad():
            attended = meta_copy(attention).eval()(x)
    except FAILURES:  # it looks at values, or will say itself in a pass what it does not take
        return
    if not isinstance(attended, Tensor) or attended.shape != x.shape:
        got = tuple(attended.shape) if isinstance(attended, Tensor) else type(attended).__name__
        raise ValueError(
            f"{type(attention).__name__} makes {got} of a map {tuple(x.shape)}; what is inserted must keep the shape: "
            "leave its options as they are (foveate.replace changes convolutions)"
        )


def _check_channels_first(model: nn.Module, name: str, maps: Sequence[Tensor], size: tuple[int, int, int]) -> None:
    """Raise a `ValueError` if the channels of the maps come last in shape."""
    if channels_come_last(model, name, maps, size):
        raise ValueError(
            f"{name!r} of {type(model).__name__} returns maps {tuple(maps[0].shape)} with their channels last in "
            "shape; attention takes (B, C, H, W): choose a network of such maps"
        )


def channels_come_last(model: nn.Module, name: str, maps: Sequence[Tensor], size: tuple[int, int, int]) -> bool:
    """Tell whether the maps that ``name`` puts out for images of ``size`` are ``(B, H, W, C)``, as in Swin.

    Then timm knows the last dimension as channels, or the second one follows the height of the image.
    """
    infos = getattr(model, "feature_info", None) or ()
    listed = [info for info in getattr(infos, "info", infos) if isinstance(info, dict) and info.get("module") == name]
    known = {info.get("num_chs") for info in listed}
    if all(x.shape[1] in known and x.shape[-1] not in known for x in maps):
        return False
    last = any(x.shape[1] not in known and x.shape[-1] in known for x in maps)
    if not last:
        channels, height, width = size
        with contextlib.suppress(ValueError), warnings.catch_warnings():  # some networks take one size alone
            warnings.simplefilter("ignore", UserWarning)  # of maps that are larger than tables
            higher = dry_run(model, (channels, height + 64, width), lambda twin, image: _outputs(twin, name, image))
            last = any(x.shape[1] != y.shape[1] for x, y in zip(maps, higher, strict=True))
    return last


def resolve(model: nn.Module, at: int | str) -> str:
    """Return the name of the module that ``at`` means."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be a network, as timm.create_model makes one; got {model!r}")
    names = [name for name, _ in model.named_modules() if name]
    if isinstance(at, str):
        if at not in names:
            known = ", ".join(feature_stages(model)) or "not listed: pass a name from model.named_modules()"
            raise ValueError(
                f"at={at!r} names no module of {type(model).__name__}{suggestion(at, names)}; its stages are {known}"
            )
        return at
    if isinstance(at, bool) or not isinstance(at, int):
        raise ValueError(f"at must be an index into model.feature_info or a module's name; got {at!r}")
    stages = feature_stages(model)
    if not stages:
        raise ValueError(
            f"{type(model).__name__} has no feature_info, so at={at} means nothing; pass a name of its named_modules()"
        )
    if not -len(stages) <= at < len(stages):
        raise ValueError(
            f"at={at} is no stage of {type(model).__name__}: allowed are {-len(stages)} to {len(stages) - 1} "
            f"({', '.join(stages)}), or a module's name"
        )
    for name in (stages[at], stages[at].replace(".", "_")):  # timm's networks of features write it so
        if name in names:
            return name
    raise ValueError(f"{type(model).__name__} has no module {stages[at]!r} for at={at}; pass a module's name")


def first_convolution(model: nn.Module) -> nn.Conv2d | None:
    """Return the convolution that was registered first, that of the stem as a rule; None if there is none."""
    return next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)


def image_size(model: nn.Module, img_size: int | tuple[int, int] | None = None) -> tuple[int, int, int]:
    """Return channels, height and width of the images that the model is made for, or those of this size."""
    first = first_convolution(model)
    if first is None:
        raise ValueError(f"{type(model).__name__} has no convolution; insert is for convolutional networks")
    configuration = getattr(model, "pretrained_cfg", None) or {}
    channels, height, width = configuration.get("input_size", (3, 224, 224))
    built = getattr(model, "_traits", {}).get("img_size") if img_size is None else img_size  # where timm notes it
    if built is not None:
        height, width = pair("img_size", built)
    own = getattr(model, "in_chans", None)
    channels = own if isinstance(own, int) else channels
    if first.in_channels > channels:  # behind a stem that moves pixels to channels, or of more channels than usual
        with contextlib.suppress(ValueError):
            dry_run(model, (channels, height, width), lambda twin, image: twin(image))
            return (channels, height, width)
    return (first.in_channels, height, width)


def _outputs(twin: nn.Module, name: str, image: Tensor) -> list[Tensor]:
    """Return the outputs of the module for ``image``: shapes without numbers."""
    target = twin.get_submodule(name)
    path, _, last = name.rpartition(".")
    parent = twin.get_submodule(path)
    behind = following(parent, last)
    first = next(iter(parent.get_submodule(behind)._modules), "") if behind else ""
    if hasattr(target, NAME) or hasattr(parent, f"{last}_{NAME}") or first == NAME:
        raise RefusedError(
            f"{name!r} has attention already, or an attribute {NAME!r} of its own; choose another module"
        )
    outputs: list[Any] = []
    target.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    twin(image)
    if len(outputs) != 1:
        raise RefusedError(
            f"{name!r} is called {len(outputs)} times in a pass of {type(twin).__name__}; choose a module called once"
        )
    maps = outputs[0] if isinstance(outputs[0], list | tuple) else [outputs[0]]
    if not all(isinstance(x, Tensor) and x.ndim == 4 for x in maps):
        shapes = ", ".join(str(tuple(x.shape)) if isinstance(x, Tensor) else type(x).__name__ for x in maps)
        raise RefusedError(f"{name!r} returns {shapes}, not feature maps (B, C, H, W); choose another module")
    return list(maps)
