"""A training that is interrupted at a known place."""

from __future__ import annotations

from typing import Any

__all__ = ["StopAt"]


class StopAt:
    """Callback that interrupts a training after an update, counted from 1 over all epochs."""

    def __init__(self, update: int) -> None:
        self.update = update

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.update:
            raise KeyboardInterrupt
