"""Parts of a network that training leaves as they are."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from foveate import _checks

__all__ = ["check_freeze", "freeze", "keep_statistics"]


def check_freeze(network: nn.Module, names: Sequence[str]) -> None:
    """Raise a `ValueError` unless ``names`` are modules of ``network`` and leave something to train."""
    known = [name for name, _ in network.named_modules() if name]
    for name in names:
        if name not in known:
            children = ", ".join(child for child, _ in network.named_children())
            hint = _checks.suggestion(name, known) or f"; its parts are {children}, and theirs, as in PART.0"
            raise ValueError(f"freeze: {type(network).__name__} has no module {name!r}{hint}")
    if names and all(_below(parameter, names) for parameter, _ in network.named_parameters()):
        raise ValueError(f"freeze leaves nothing of {type(network).__name__} to train; leave a name out")


def freeze(network: nn.Module, names: Sequence[str]) -> None:
    """Exclude the parameters of the modules ``names`` and of what is in them from training, in place."""
    for name in names:
        network.get_submodule(name).requires_grad_(False)


def keep_statistics(network: nn.Module, names: Sequence[str]) -> None:
    """Put the modules ``names`` in evaluation mode: their batch statistics stay, and nothing in them is dropped."""
    for name in names:
        network.get_submodule(name).eval()


def _below(parameter: str, names: Sequence[str]) -> bool:
    return any(parameter.startswith(f"{name}.") for name in names)
