"""Places in a network where an attention module can be registered, and whether it computes there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from foveate.models.inspection import FAILURES, dry_run

__all__ = ["NAME", "Place", "following", "places", "works"]

NAME = "attention"
"""Name under which the module is registered."""


class Attended:
    """Mixin for a module's class: the output passes through its child ``attention``.

    Changing the class of the instance, rather than wrapping it, keeps the names of its parameters, its attributes,
    and whatever a network does with it.
    """

    attention: nn.Module
    made_from: type[nn.Module]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Attend to the output of the module."""
        return self.attention(super().forward(*args, **kwargs))  # type: ignore[misc]

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return _remake, (self.made_from, True), self.__getstate__()


class Fused:
    """Mixin for the class of a sequence that fuses its layers: the attention among them stays behind what comes of it.

    `timm.utils.reparameterize_model` puts what ``fuse()`` returns in the module's place.
    """

    made_from: type[nn.Module]

    def fuse(self) -> nn.Module:
        """Fuse the module without its attention."""
        return _fused(self, self.made_from)

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return _remake, (self.made_from, False), self.__getstate__()


@dataclass(frozen=True)
class Place:
    """Place where an attention module can be registered, and how."""

    target: str
    how: str
    """``child``: last child; ``before``: first child; ``beside``: both in its place; ``behind``: next to it; ``class``:
    child that its class calls."""

    def put(self, model: nn.Module, module: nn.Module) -> None:
        """Register ``module`` there."""
        target = model.get_submodule(self.target)
        path, _, last = self.target.rpartition(".")
        parent = model.get_submodule(path)
        if self.how == "before":
            children = dict(target._modules)
            target._modules.clear()
            target._modules.update({NAME: module, **children})
        elif self.how == "behind":
            _insert_behind(parent, last, f"{last}_{NAME}", module)
        elif self.how == "beside":
            both = nn.Sequential()
            both.add_module("layer", target)
            both.add_module(NAME, module)
            parent._modules[last] = both.train(target.training)
        else:
            if self.how == "class" or hasattr(target, "fuse"):
                target.__class__ = _attended(type(target), self.how == "class")
            target.add_module(NAME, module)


def places(model: nn.Module, name: str, size: tuple[int, int, int]) -> Iterator[Place]:
    """Yield places for attention to the output of ``name``, the best first."""
    target = model.get_submodule(name)
    parent = model.get_submodule(name.rpartition(".")[0])
    is_layer = isinstance(target, nn.modules.batchnorm._NormBase) or not list(target.children())
    if not is_layer:
        yield Place(name, "child")
        for inner in dry_run(model, size, lambda twin, image: _same_output(twin, name, image)):
            yield Place(inner, "child")
    if is_layer and not list(target.parameters()) and not list(target.buffers()):
        yield Place(name, "beside")
    if not is_layer:
        yield Place(name, "class")
    if isinstance(parent, nn.Sequential):
        path, _, last = name.rpartition(".")
        behind = following(parent, last)
        if behind and isinstance(parent._modules[behind], nn.Sequential):
            yield Place(f"{path}.{behind}" if path else behind, "before")
        yield Place(name, "behind")


def _same_output(twin: nn.Module, name: str, image: Tensor) -> list[str]:
    """Return the containers within ``name`` that return the very tensor that it returns, the outermost first.

    One to whose output a block adds its shortcut in place returns the same tensor, with other numbers in it.
    """
    outputs: dict[str, tuple[Any, list[int]]] = {}

    def note(inner: str, output: Any) -> None:
        outputs[inner] = output, [x._version for x in _tensors(output)]

    for inner, module in twin.get_submodule(name).named_modules(prefix=name):
        if inner == name or list(module.children()):
            module.register_forward_hook(lambda _, inputs, output, inner=inner: note(inner, output))
    with torch.inference_mode(False):
        twin(torch.zeros_like(image))
    whole, versions = outputs.pop(name, (None, []))
    same = [inner for inner, (output, then) in outputs.items() if output is whole and then == versions]
    return sorted(same, key=len)


def works(twin: nn.Module, place: Place, image: Tensor, channels: list[int]) -> bool:
    """Tell whether a network calls a module in ``place`` once, with maps of ``channels``, and depends on it.

    Its intermediate maps must stay what they are: some networks count the children of a sequence.
    """
    with torch.inference_mode(False), torch.enable_grad():
        probe, image = _Probe().to(image.device), image.detach().clone()
        twin(image)  # what the network cannot do by itself is for `dry_run` to hear of
        try:
            before = _intermediates(twin, image)
            place.put(twin, probe)
            if not _same_stages(before, _intermediates(twin, image)):
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
    """Stand-in for an attention module in a trial: passes maps on, notes them, and leaves a trace in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.seen: list[list[int]] = []

    def forward(self, maps: Any) -> Any:
        several = isinstance(maps, list | tuple)
        self.seen.append([x.shape[1] for x in (maps if several else [maps])])
        scaled = [x * self.scale.to(x.dtype) for x in (maps if several else [maps])]
        return scaled if several else scaled[0]


def following(parent: nn.Module, child: str) -> str | None:
    """Return the name of the child that follows."""
    names = list(parent._modules)
    return next(iter(names[names.index(child) + 1 :]), None)


def _intermediates(twin: Any, image: Tensor) -> list[tuple[str | None, torch.Size]]:
    """Return which module each intermediate map comes from, and its shape."""
    if not hasattr(twin, "forward_intermediates"):
        return []
    made: dict[int, str] = {}
    kept: list[Any] = []  # so that no other tensor gets their ids

    def note(name: str, output: Any) -> None:
        kept.append(output)
        made[id(output)] = name  # the outermost, and the last that works in place

    handles = [
        module.register_forward_hook(lambda module, inputs, output, name=name: note(name, output))
        for name, module in twin.named_modules()
        if name
    ]
    maps = list(_tensors(twin.forward_intermediates(image, intermediates_only=True)))
    for handle in handles:
        handle.remove()
    return [(made.get(id(x)), x.shape) for x in maps]


def _same_stages(before: list[tuple[str | None, torch.Size]], after: list[tuple[str | None, torch.Size]]) -> bool:
    """Tell whether maps come from the same modules, or from attention within or behind them."""

    def related(one: str | None, other: str | None) -> bool:
        if one is None or other is None:
            return True
        stage = other.removesuffix(f".{NAME}").removesuffix(f"_{NAME}")
        return f"{one}.".startswith(f"{stage}.") or f"{stage}.".startswith(f"{one}.")

    return len(before) == len(after) and all(
        a[1] == b[1] and related(a[0], b[0]) for a, b in zip(before, after, strict=True)
    )


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


_CLASSES: dict[tuple[type[nn.Module], bool], type[nn.Module]] = {}


def _attended(base: type[nn.Module], calls: bool) -> type[nn.Module]:
    """Return the class of a module that ``calls`` its attention in its own forward, or has it among its layers."""
    if (base, calls) not in _CLASSES:
        mixins = (Attended,) * calls + (Fused,) * hasattr(base, "fuse")
        members = {"__module__": __name__, "made_from": base}
        _CLASSES[base, calls] = type(f"Attended{base.__name__}", (*mixins, base), members)
    return _CLASSES[base, calls]


def _remake(base: type[nn.Module], calls: bool) -> nn.Module:
    kind = _attended(base, calls)
    return kind.__new__(kind)


def _fused(module: Any, base: Any) -> nn.Module:
    """Return what the module without its attention is fused to, and the attention behind it."""
    attention = module._modules.pop(NAME)  # some count their layers
    try:
        fused = base.fuse(module)
    finally:
        module.add_module(NAME, attention)
    if fused is module:
        return fused
    both = nn.Sequential()
    both.add_module("layer", fused)
    both.add_module(NAME, attention)
    return both.train(module.training)
