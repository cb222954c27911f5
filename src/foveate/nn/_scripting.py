"""What cannot be compiled by `torch.jit.script`, said by the module and not by the compiler."""

from __future__ import annotations

from typing import NoReturn

__all__ = ["NotScriptable"]


class NotScriptable:
    """Mixin of the modules whose mathematics TorchScript cannot express: custom operators, choices made by shapes."""

    def __prepare_scriptable__(self) -> NoReturn:
        raise NotImplementedError(
            f"{type(self).__name__} cannot be compiled by torch.jit.script; use torch.jit.trace, whose graph holds for "
            f"images of every size, or torch.export.export"
        )
