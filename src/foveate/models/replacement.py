"""Replacement of the 3×3 convolutions of any network by attention."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from foveate.models.insertion import detector_backbone, fixed_size, image_size, in_backbone, resolve
from foveate.models.inspection import dry_run, evaluating
from foveate.models.tables import watch_tables
from foveate.nn import ExpAttConv2d, SpatialAttention

__all__ = ["replace"]


def replace(
    model: nn.Module,
    attention: Callable[..., nn.Module],
    at: int | str | Sequence[int | str] = -1,
    *,
    img_size: int | tuple[int, int] | None = None,
    **options: Any,
) -> nn.Module:
    """Put attention in place of the 3×3 convolutions of stages of ``model``, in place; return ``model``.

    What GSA does to all four stages of a ResNet (Shen et al. 2020), ExpAtt and AA to the last three (Tan et al. 2021,
    Bello et al. 2019), in any network; `foveate.insert` adds attention and leaves the convolutions. Grouped
    convolutions, such as depthwise ones, stay, and so do those beside attention in `ExpAttConv2d` and
    `AttentionAugmentedConv2d`. The weights of what is replaced are lost, biases among them: the attention has none.
    Those of the rest stay.

    The channels, the stride and the dilation are those of the convolution; relative tables are made for the map that it
    sees in an image of ``img_size``.

    Args:
        model: Any network with NCHW feature maps; of timm's, stages can be given by their index; of torchvision's
            detectors, by their names within the ``backbone``.
        attention: A module class such as `foveate.nn.GlobalSelfAttention2d`, `foveate.nn.ExpAttConv2d` or
            `foveate.nn.AttentionAugmentedConv2d`; called as ``attention(in_channels, out_channels, stride=…, **options,
            device=…, dtype=…)``, with ``feat_size`` and ``dilation`` if it takes them.
        at: Index into ``model.feature_info`` (−1, the default: the last stage), the name of a module as in
            ``model.named_modules()``, or several of them.
        img_size: Height and width of the images, by default those that a network of timm's is made for, else 224.
        **options: Passed on to ``attention``.

    Raises:
        ValueError: ``at`` names nothing, or a part without such a convolution; ``attention`` does not take its channels
            or the options, or its output is of another size; the model is unchanged then.

    Examples:
        >>> network = timm.create_model("resnet18")
        >>> network = foveate.replace(network, foveate.nn.GlobalSelfAttention2d, at=["layer3", "layer4"])
        >>> network.layer4[0].conv1.feat_size, network.layer4[0].conv2.feat_size
        ((14, 14), (7, 7))
    """
    parts = [at] if isinstance(at, str) or not isinstance(at, Sequence) else at
    if (backbone := detector_backbone(model)) is not None:
        replace(
            backbone,
            attention,
            [in_backbone(part) for part in parts],
            img_size=fixed_size(model) if img_size is None else img_size,
            **options,
        )
        return model
    names = _convolutions(model, parts)
    channels, height, width = image_size(model, img_size)
    convolutions = {name: model.get_submodule(name) for name in names}
    shapes, seen = dry_run(model, (channels, height, width), lambda twin, image: _shapes(twin, names, image))
    if uncalled := [name for name in names if len(shapes[name]) != 1]:
        raise ValueError(
            f"{uncalled[0]!r} is called {len(shapes[uncalled[0]])} times in a pass of {type(model).__name__}; choose "
            "modules called once"
        )

    def modules(sizes: Mapping[str, tuple[int, int]], device: Any = None) -> dict[str, nn.Module]:
        return {
            name: _instead(conv, attention, _size_at(name, sizes), device, options)
            for name, conv in convolutions.items()
        }

    modules(seen, "meta")  # so that what is wrong with the options is not said of the image

    def tried(twin: nn.Module, image: Tensor) -> tuple[dict[str, tuple[int, int]], dict[str, list[torch.Size]]]:
        _put(twin, modules(seen, image.device))
        found, _ = _watch(twin, names)
        with evaluating(twin):
            return seen | watch_tables(twin, image), found

    sizes, found = dry_run(model, (channels, height, width), tried)
    for name in names:
        if found[name] != shapes[name]:
            raise ValueError(
                f"in place of {name!r} {getattr(attention, '__name__', attention)} makes maps of "
                f"{_text(found[name])}, the convolution {_text(shapes[name])}: its padding does not keep the size"
            )
    _put(model, modules(sizes))
    return model


def _convolutions(model: nn.Module, at: Sequence[int | str]) -> list[str]:
    """Return the names of the convolutions in the parts that ``at`` means."""
    names: dict[str, None] = {}
    attending = [module for module in model.modules() if isinstance(module, SpatialAttention | ExpAttConv2d)]
    of_attention = {id(inner) for module in attending for inner in module.modules()}
    for place in at:
        part = resolve(model, place)
        inside = model.get_submodule(part).named_modules(prefix=part)
        own = [name for name, module in inside if _fits(module) and id(module) not in of_attention]
        if not own:
            raise ValueError(
                f"{part!r} of {type(model).__name__} has no 3×3 convolution over all channels; choose another part, or "
                "add attention to its output: foveate.insert"
            )
        names |= dict.fromkeys(own)
    if not names:
        raise ValueError("at must name at least one stage or module; got none")
    return list(names)


def _fits(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Conv2d)
        and (module.kernel_size, module.groups) == ((3, 3), 1)
        and len(set(module.stride)) == len(set(module.dilation)) == 1
    )


def _instead(
    conv: Any, attention: Callable[..., nn.Module], feat_size: tuple[int, int], device: Any, options: Mapping[str, Any]
) -> nn.Module:
    """Return the attention for the place of ``conv``."""
    own = {"stride": conv.stride[0], "device": device or conv.weight.device, "dtype": conv.weight.dtype}
    optional = {"feat_size": feat_size, "dilation": conv.dilation[0]}
    try:
        known = inspect.signature(attention).parameters
        own |= {name: value for name, value in optional.items() if name in known}
        module = attention(conv.in_channels, conv.out_channels, **(own | dict(options)))
    except TypeError as error:
        raise ValueError(
            f"attention must be a class called as attention(in_channels, out_channels, stride=…, device=…, dtype=…); "
            f"{attention!r} cannot be called so{f' with {named}' if (named := ', '.join(options)) else ''}: {error}"
        ) from error
    return module.train(conv.training)


def _put(model: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    for name, module in modules.items():
        path, _, last = name.rpartition(".")
        model.get_submodule(path)._modules[last] = module


Watched = tuple[dict[str, list[torch.Size]], dict[str, tuple[int, int]]]


def _shapes(twin: nn.Module, names: Sequence[str], image: Tensor) -> Watched:
    found = _watch(twin, names)
    twin(image)
    return found


def _watch(twin: nn.Module, names: Sequence[str]) -> Watched:
    """Return dicts to which a pass adds the shapes of the outputs of modules, and the sizes of their inputs."""
    outputs: dict[str, list[torch.Size]] = {name: [] for name in names}
    inputs: dict[str, tuple[int, int]] = {}

    def note(name: str, given: Any, output: Tensor) -> None:
        inputs[name] = tuple(given[0].shape[2:])
        outputs[name].append(output.shape)

    for name in names:
        twin.get_submodule(name).register_forward_hook(lambda _, given, output, name=name: note(name, given, output))
    return outputs, inputs


def _size_at(name: str, sizes: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    """Return the size of the map that a module attends to: by its tables or those inside of it, else its input's."""
    inside = (size for inner, size in sizes.items() if inner.startswith(f"{name}."))
    return next(inside, sizes.get(name, (1, 1)))


def _text(shapes: Sequence[torch.Size]) -> str:
    return ", ".join("×".join(map(str, shape[1:])) for shape in shapes)
