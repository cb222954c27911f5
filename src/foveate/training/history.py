"""The rows of a training, one per epoch, and the loggers that they go to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from foveate.tasks import Task
from foveate.training.loggers import EpochLogger, Row

__all__ = ["History"]


class History:
    """The rows of a training, kept in step with its checkpoint.

    Args:
        rows: Those of the checkpoint that the training continues from.
        task: Names the metric that is highest in the best epoch, and summarizes a validation.
        epochs: Number of epochs of the training.
        loggers: What each row is written to.
        say: Prints the line of an epoch, as `print` does; None prints nothing.
    """

    def __init__(
        self,
        rows: list[Row],
        task: Task,
        *,
        epochs: int,
        loggers: Sequence[EpochLogger] = (),
        say: Callable[..., object] | None = None,
    ) -> None:
        self.rows = rows
        self.task = task
        self.epochs = epochs
        self.loggers = loggers
        self.say = say
        for logger in loggers:
            logger.start(rows)

    @property
    def last_is_best(self) -> bool:
        """Whether the last epoch is the first with the highest metric."""
        metric = f"val_{self.task.metric}"
        last = self.rows[-1][metric]
        return all(last > row[metric] or math.isnan(row[metric]) for row in self.rows[:-1])

    def add(self, row: Row) -> None:
        """Add the row of an epoch that is complete and not yet in a checkpoint."""
        self.rows.append(row)
        for logger in self.loggers:
            logger.add(row)
        if self.say is not None:
            equivariance = f"equivariance {row['train_equivariance']:.4f}  " if "train_equivariance" in row else ""
            skipped = f"  {row['skipped']} skipped" if row.get("skipped") else ""
            self.say(
                f"epoch {row['epoch']:>3}/{self.epochs}  train loss {row['train_loss']:.4f}  {equivariance}"
                f"{self.task.summary(row)}  lr {row['lr']:.2e}  {row['seconds']:.1f} s{skipped}",
                flush=True,  # also where it goes to a file
            )

    def saved(self) -> None:
        """Tell the loggers that a checkpoint holds the rows."""
        for logger in self.loggers:
            logger.saved(self.rows)

    def close(self, status: str) -> None:
        """Close the loggers; ``status`` is ``success`` or ``failed``."""
        for logger in self.loggers:
            logger.close(status)
