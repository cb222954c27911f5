"""What callbacks of Lightning's ask of the trainer that they are given, here the training loop."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from foveate.training.train_state import TrainState

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from lightning.pytorch.trainer.states import TrainerState

__all__ = ["CallbackTrainer"]


class CallbackTrainer:
    """Base class of the training loop: as much of Lightning's trainer as its `EarlyStopping` and simple callbacks need.

    Attributes:
        should_stop: Set by a callback, it ends the training after the epoch.
        callbacks: Those with a ``state_dict`` have it saved in the checkpoints.
    """

    progress: TrainState
    rows: list[dict[str, float]]
    fabric: Fabric
    callbacks: Sequence[Any] = ()
    should_stop = False
    sanity_checking = fast_dev_run = False

    @property
    def current_epoch(self) -> int:
        """Number of the epoch, from 0."""
        return self.progress.epoch

    @property
    def global_step(self) -> int:
        """Updates so far."""
        return self.progress.updates

    @property
    def callback_metrics(self) -> dict[str, Tensor]:
        """The row of the last epoch that is complete; nothing before there is one."""
        return {name: torch.tensor(value) for name, value in (self.rows[-1] if self.rows else {}).items()}

    @property
    def strategy(self) -> Any:
        """Fabric's strategy, by which processes agree."""
        return self.fabric.strategy

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return self.fabric.world_size

    @property
    def global_rank(self) -> int:
        """Number of this process."""
        return self.fabric.global_rank

    @property
    def state(self) -> TrainerState:
        """That of a training."""
        from lightning.pytorch.trainer.states import TrainerFn, TrainerState, TrainerStatus

        return TrainerState(status=TrainerStatus.RUNNING, fn=TrainerFn.FITTING)

    def callback_states(self) -> list[tuple[str, Any]]:
        """Return the class and the state of each callback that has one.

        Raises:
            ValueError: A state holds objects that a checkpoint may not hold.
        """
        states = []
        for callback in self.callbacks:
            state = callback.state_dict() if hasattr(callback, "state_dict") else None
            if not state:
                continue
            try:
                torch.save(state, stream := io.BytesIO())
                stream.seek(0)
                torch.load(stream, weights_only=True)
            except Exception as error:  # of pickle, which has many
                raise ValueError(
                    f"the state_dict of {type(callback).__name__} cannot be saved in a checkpoint: {error}; it may be "
                    "of tensors, numbers, texts, and lists and dictionaries of them"
                ) from error
            states.append((type(callback).__qualname__, state))
        return states

    def load_callback_states(self, states: Sequence[tuple[str, Any]]) -> None:
        """Hand each callback the state that one of its class had, in their order."""
        left = list(states)
        for callback in self.callbacks:
            found = next((entry for entry in left if entry[0] == type(callback).__qualname__), None)
            if found is not None and hasattr(callback, "load_state_dict"):
                left.remove(found)
                callback.load_state_dict(found[1])
