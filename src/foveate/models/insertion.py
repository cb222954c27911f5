"""Insertion of an attention module behind any stage or module of a convolutional network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from foveate._checks import suggestion
from foveate.models.inspection import FAILURES, dry_run, feature_stages

__all__ = ["insert"]

NAME = "attention"
"""What the module is called where it is registered."""


def insert(model: nn.Module, attention: Callable[..., nn.Module], at: int | str = -2, **options: Any) -> nn.Module:
    """Let an attention module look at the output of one stage or module of ``model``, in place.

    The module is registered where it computes, so that whatever is done with that part of the network (moved, frozen,
    saved, taken out, wrapped, replaced) is done with its attention. Of the places where it could be, the first is
    taken in which the network, run once on a copy without memory, calls it exactly once, with that output, and puts
    out something that depends on it:

    1. the last child of the stage itself, ``<stage>.attention``, where that calls its children in turn;
    2. the last child of the part of the stage that puts out the same tensor (``stages.2.blocks.attention``);
    3. beside a layer without weights, both in an `nn.Sequential` in its place (``features.8.attention``);
    4. a child of a module that has a ``forward`` of its own, the class of which becomes one that attends to its output;
    5. right behind a layer with weights, as ``<layer>_attention`` in the `nn.Sequential` that holds it.

    The names of the network's own parameters stay what they are, so its checkpoints still load. To use pretrained
    weights, load them first (``timm.create_model(…, pretrained=True)``). Where the output is several maps (the stages
    of HRNet), each gets a module of its own.

    Args:
        model: Any timm convolutional network, or any network of yours with NCHW feature maps if ``at`` is a name.
        attention: A module class, `foveate.nn.RectangularAttention2d` or `foveate.nn.PositionwiseAttention2d` or
            your own; called as ``attention(channels, **options, device=…, dtype=…)``.
        at: Index into ``model.feature_info`` (−2, the default: the last stage but one), or the name of a module
            as in ``model.named_modules()``.
        **options: Passed on to ``attention``.

    Returns:
        ``model``.

    Raises:
        ValueError: ``at`` names nothing, or something that does not return NCHW maps, or that has attention already, or
            behind which attention would not be computed in every pass; the model is as it was.

    Example:
        >>> network = foveate.insert(timm.create_model("resnet18"), foveate.nn.RectangularAttention2d, at=-2)
        >>> type(network.layer3.attention).__name__
        'RectangularAttention2d'
    """
    name = _resolve(model, at)
    size = _image_size(model)
    maps = dry_run(model, size, lambda twin, image: _outputs(twin, name, image))
    channels = [x.shape[1] for x in maps]
    parameter = next(p for p in model.parameters() if p.is_floating_point())
    options |= {"device": parameter.device, "dtype": parameter.dtype}
    try:
        modules = [attention(number, **options) for number in channels]
    except TypeError as error:
        raise ValueError(
            f"attention must be a class called as attention(channels, **options, device=…, dtype=…); {attention!r} "
            f"does not take {', '.join(options)}: {error}"
        ) from error
    module = modules[0] if len(modules) == 1 else ForEach(modules)
    for place in _places(model, name, size):
        if dry_run(model, size, lambda twin, image, place=place: _works(twin, place, image, channels)):  # type: ignore[misc]
            place.put(model, module.train(model.training))
            return model
    raise ValueError(
        f"attention behind {name!r} would not be computed in a pass of {type(model).__name__}, or nothing would "
        "depend on it: the network calls parts of it by themselves; choose the stage around it, or another module"
    )


class ForEach(nn.ModuleList):
    """Applies one module to each of several maps."""

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Return the attended maps."""
        return [module(x) for module, x in zip(self, maps, strict=True)]


class Attended:
    """Mixin for a module's class: the output passes through its child ``attention``.

    Changing the class of the one instance, rather than wrapping it, keeps the names of its parameters, its attributes,
    and whatever a network does with it.
    """

    attention: nn.Module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute what the module computes, and attend to it."""
        return self.attention(super().forward(*args, **kwargs))  # type: ignore[misc]

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return _remake, (type(self).__mro__[2],), self.__dict__


@dataclass(frozen=True)
class _Place:
    """Where an attention module could be registered, and how."""

    target: str
    how: str
    """``child``: its last; ``beside``: both in its place; ``behind``: next to it; ``class``: called by its class."""

    def put(self, model: nn.Module, module: nn.Module) -> None:
        """Register ``module`` there."""
        target = model.get_submodule(self.target)
        path, _, last = self.target.rpartition(".")
        parent = model.get_submodule(path)
        if self.how == "behind":
            _insert_behind(parent, last, f"{last}_{NAME}", module)
        elif self.how == "beside":
            both = nn.Sequential()
            both.add_module("layer", target)
            both.add_module(NAME, module)
            parent._modules[last] = both.train(target.training)
        else:
            if self.how == "class":
                target.__class__ = _attended(type(target))
            target.add_module(NAME, module)


def _places(model: nn.Module, name: str, size: tuple[int, int, int]) -> Iterator[_Place]:
    """Yield where attention to the output of ``name`` could be registered, the best first."""
    target = model.get_submodule(name)
    parent = model.get_submodule(name.rpartition(".")[0])
    is_layer = isinstance(target, nn.modules.batchnorm._NormBase) or not list(target.children())
    if not is_layer:
        yield _Place(name, "child")
        for inner in dry_run(model, size, lambda twin, image: _same_output(twin, name, image)):
            yield _Place(inner, "child")
    if is_layer and not list(target.parameters()) and not list(target.buffers()):
        yield _Place(name, "beside")
    if not is_layer:
        yield _Place(name, "class")
    if isinstance(parent, nn.Sequential):
        yield _Place(name, "behind")


def _same_output(twin: nn.Module, name: str, image: Tensor) -> list[str]:
    """Return the containers within ``name`` that put out the very tensor that it puts out, the outermost first."""
    outputs: dict[str, Any] = {}
    for inner, module in twin.get_submodule(name).named_modules(prefix=name):
        if inner == name or list(module.children()):
            module.register_forward_hook(lambda _, inputs, output, inner=inner: outputs.update({inner: output}))
    twin(image)
    whole = outputs.pop(name, None)
    return [inner for inner in sorted(outputs, key=len) if outputs[inner] is whole]


def _works(twin: nn.Module, place: _Place, image: Tensor, channels: list[int]) -> bool:
    """Tell whether a network calls a module in ``place`` once, with maps of ``channels``, and depends on it.

    What it gives as intermediate maps must stay what it is: some count the children of a sequence.
    """
    with torch.inference_mode(False), torch.enable_grad():
        probe, image = _Probe(), torch.empty_like(image)
        try:
            before = _intermediate_shapes(twin, image)
            place.put(twin, probe)
            if _intermediate_shapes(twin, image) != before:
                return False
            probe.seen.clear()
            dependent = [x.float().sum() for x in _tensors(twin(image)) if x.requires_grad]
        except (ValueError, *FAILURES):
            return False
    if probe.seen != [channels] or not dependent:
        return False
    (gradient,) = torch.autograd.grad(dependent, [probe.scale], allow_unused=True)
    return gradient is not None


class _Probe(nn.Module):
    """Stands for an attention module in a trial: passes maps on, notes them, and leaves a trace in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), device="meta"))
        self.seen: list[list[int]] = []

    def forward(self, maps: Any) -> Any:
        several = isinstance(maps, list | tuple)
        self.seen.append([x.shape[1] for x in (maps if several else [maps])])
        scaled = [x * self.scale.to(x.dtype) for x in (maps if several else [maps])]
        return scaled if several else scaled[0]


def _intermediate_shapes(twin: Any, image: Tensor) -> list[torch.Size]:
    if not hasattr(twin, "forward_intermediates"):
        return []
    return [x.shape for x in _tensors(twin.forward_intermediates(image, intermediates_only=True))]


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from _tensors(value)


def _insert_behind(parent: nn.Module, before: str, name: str, module: nn.Module) -> None:
    children = list(parent._modules.items())
    index = [key for key, _ in children].index(before) + 1
    parent._modules.clear()
    parent._modules.update([*children[:index], (name, module), *children[index:]])


_CLASSES: dict[type[nn.Module], type[nn.Module]] = {}


def _attended(base: type[nn.Module]) -> type[nn.Module]:
    if base not in _CLASSES:
        _CLASSES[base] = type(f"Attended{base.__name__}", (Attended, base), {"__module__": __name__})
    return _CLASSES[base]


def _remake(base: type[nn.Module]) -> nn.Module:
    kind = _attended(base)
    return kind.__new__(kind)


def _resolve(model: nn.Module, at: int | str) -> str:
    """Return the name of the module that ``at`` means."""
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


def _image_size(model: nn.Module) -> tuple[int, int, int]:
    """Return channels, height and width of the images that the model is made for."""
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        raise ValueError(f"{type(model).__name__} has no convolution; insert is for convolutional networks")
    configuration = getattr(model, "pretrained_cfg", None) or {}
    return (first.in_channels, *configuration.get("input_size", (3, 224, 224))[1:])


def _outputs(twin: nn.Module, name: str, image: Tensor) -> list[Tensor]:
    """Return what the module puts out for ``image``: shapes without numbers."""
    target = twin.get_submodule(name)
    if hasattr(target, NAME) or hasattr(
        twin.get_submodule(name.rpartition(".")[0]), f"{name.rpartition('.')[2]}_{NAME}"
    ):
        raise ValueError(f"{name!r} has attention already, or an attribute {NAME!r} of its own; choose another module")
    outputs: list[Any] = []
    target.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    twin(image)
    if len(outputs) != 1:
        raise ValueError(
            f"{name!r} is called {len(outputs)} times in a pass of {type(twin).__name__}; choose a module called once"
        )
    maps = outputs[0] if isinstance(outputs[0], list | tuple) else [outputs[0]]
    if not all(isinstance(x, Tensor) and x.ndim == 4 for x in maps):
        shapes = ", ".join(str(tuple(x.shape)) if isinstance(x, Tensor) else type(x).__name__ for x in maps)
        raise ValueError(f"{name!r} returns {shapes}, not feature maps (B, C, H, W); choose another module")
    return list(maps)
