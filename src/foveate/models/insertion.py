"""Insertion of an attention module behind any stage or module of a convolutional network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from foveate._checks import suggestion
from foveate._networks import dry_run, feature_stages

__all__ = ["insert"]


def insert(model: nn.Module, attention: Callable[..., nn.Module], at: int | str = -2, **options: Any) -> nn.Module:
    """Let an attention module look at the output of one stage or module of ``model``, in place.

    The names of the network's own parameters stay what they are, so its checkpoints still load; the new module is
    registered as ``model.attention.<name>``, dots replaced by underscores. To use pretrained weights, load them
    first (``timm.create_model(…, pretrained=True)``).

    Where the chosen module returns several maps (the stages of HRNet), each gets a module of its own.

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
        ValueError: ``at`` names nothing, or something that does not return NCHW maps, or that has attention already;
            the model is as it was.
    """
    if isinstance(model, nn.Sequential):
        raise ValueError("an nn.Sequential calls all of its children in turn: put the attention module among them")
    name = _resolve(model, at)
    holder = getattr(model, "attention", None)
    if holder is not None and not isinstance(holder, InsertedAttention):
        raise ValueError(
            f"{type(model).__name__} has an attribute 'attention' of its own; insert cannot add its modules"
        )
    key = name.replace(".", "_")
    target = _last(model.get_submodule(name))
    if isinstance(target, Attended):
        raise ValueError(f"{name!r} has attention already; choose another module")
    maps = _output_of(model, name)
    parameter = next(model.parameters())
    options |= {"device": parameter.device, "dtype": parameter.dtype}
    try:
        modules = [attention(x.shape[1], **options).train(model.training) for x in maps]
    except TypeError as error:
        raise ValueError(
            f"attention must be a class called as attention(channels, **options, device=…, dtype=…); {attention!r} "
            f"does not take {', '.join(options)}: {error}"
        ) from error
    module = modules[0] if len(modules) == 1 else ForEach(modules)
    if holder is None:
        model.attention = holder = InsertedAttention()
    holder[key] = module
    _attend(target, module)
    return model


class InsertedAttention(nn.ModuleDict):
    """Holds the inserted modules; they are called from the modules behind which they stand."""


class ForEach(nn.ModuleList):
    """Applies one module to each of several maps."""

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Return the attended maps."""
        return [module(x) for module, x in zip(self, maps, strict=True)]


class Attended:
    """Mixin for a module's class: the output passes through an attention module that another module owns.

    Changing the class of the one instance, rather than wrapping it, keeps parameter names, attributes, and whatever a
    network does with its stages (iterate over them, index them, checkpoint them).
    """

    _attention: nn.Module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute what the module computes, and attend to it."""
        return self._attention(super().forward(*args, **kwargs))  # type: ignore[misc]

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return _remake, (type(self).__mro__[2],), self.__dict__


def _attend(target: nn.Module, module: nn.Module) -> None:
    target.__class__ = _attended(type(target))
    # Not registered a second time: stages that iterate over their children must not find it there.
    target.__dict__["_attention"] = module


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
    if stages[at] not in names:
        raise ValueError(f"{type(model).__name__} has no module {stages[at]!r} for at={at}; pass a module's name")
    return stages[at]


def _last(module: nn.Module) -> nn.Module:
    """Descend to the last part of a plain sequence, which is what checkpointed networks call directly."""
    while isinstance(module, nn.Sequential) and len(module):
        module = module[-1]
    return module


def _output_of(model: nn.Module, name: str) -> list[Tensor]:
    """Return what the module puts out for an image of the size that the model is made for: shapes without numbers."""
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        raise ValueError(f"{type(model).__name__} has no convolution; insert is for convolutional networks")
    size = (getattr(model, "pretrained_cfg", None) or {}).get("input_size", (3, 224, 224))[1:]

    def watch(twin: nn.Module, image: Tensor) -> list[Any]:
        outputs: list[Any] = []
        twin.get_submodule(name).register_forward_hook(lambda module, inputs, output: outputs.append(output))
        twin(image)
        return outputs

    outputs = dry_run(model, (first.in_channels, *size), watch)
    if len(outputs) != 1:
        raise ValueError(
            f"{name!r} is called {len(outputs)} times in a pass of {type(model).__name__}; choose a module called once"
        )
    maps = outputs[0] if isinstance(outputs[0], list | tuple) else [outputs[0]]
    if not all(isinstance(x, Tensor) and x.ndim == 4 for x in maps):
        shapes = ", ".join(str(tuple(x.shape)) if isinstance(x, Tensor) else type(x).__name__ for x in maps)
        raise ValueError(f"{name!r} returns {shapes}, not feature maps (B, C, H, W); choose another module")
    return list(maps)
