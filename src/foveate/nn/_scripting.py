"""Refusal of `torch.jit.script` by modules that it cannot compile."""

from __future__ import annotations

from typing import NoReturn

__all__ = ["NotScriptable"]


class NotScriptable:
    """Mixin for modules that TorchScript cannot express: custom operators, and control flow that depends on shapes."""

    def __prepare_scriptable__(self) -> NoReturn:
        raise NotImplementedError(
            f"{type(self).__name__} cannot be compiled by torch.jit.script; use torch.jit.trace, whose graph holds for "
            f"images of every size, or torch.export.export"
        )
