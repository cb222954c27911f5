"""What happened in each epoch: printed, as a CSV file, and for TensorBoard."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable
from pathlib import Path

from foveate.io.files import write_text
from foveate.io.streams import printable

__all__ = ["History", "Rows"]

logger = logging.getLogger(__name__)

Row = dict[str, float]


class Rows:
    """The rows of a run, one per epoch, as a process keeps them that writes nothing.

    Args:
        rows: Those of the checkpoint that the run continues from.
    """

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows

    @property
    def last_is_best(self) -> bool:
        """Whether the last epoch is the first with the highest validation top-1."""
        return all(self.rows[-1]["val_top1"] > row["val_top1"] for row in self.rows[:-1])

    def add(self, row: Row) -> None:
        """Add the row of an epoch."""
        self.rows.append(row)

    def saved(self) -> None:
        """Note that the checkpoint holds the rows."""

    def close(self) -> None:
        """Note that there will be no more rows."""


class History(Rows):
    """Keeps the rows of a run, one per epoch, on the disk and in step with its checkpoint.

    The checkpoint holds the rows. ``logs/metrics.csv`` is written anew from them after each epoch and at each start,
    so that no interruption loses a row or doubles one. TensorBoard's files can only grow: a run that is resumed begins
    another one, which tells TensorBoard to drop what older files hold of the epochs that are computed again.

    Args:
        folder: Folder of the run.
        rows: Those of the checkpoint that the run continues from.
        epochs: How many epochs there will be.
        say: Prints the line of an epoch.

    Raises:
        OSError: A file cannot be written.
    """

    def __init__(self, folder: Path, rows: list[Row], *, epochs: int, say: Callable[[str], None]) -> None:
        super().__init__(rows)
        self._csv = folder / "logs" / "metrics.csv"
        self._tensorboard = folder / "tensorboard"
        self._epochs = epochs
        self._say = say
        self._csv.parent.mkdir(exist_ok=True)
        self._write()
        self._writer = None
        if printable(str(folder)) == str(folder):
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._tensorboard), purge_step=len(rows) + 1)
        else:
            logger.warning(
                "nothing is written for TensorBoard, which takes folders with names in UTF-8 only: %s", folder
            )

    def add(self, row: Row) -> None:
        """Add the row of an epoch to everything but the CSV file."""
        super().add(row)
        try:
            if self._writer is not None:
                for name, value in row.items():
                    if name != "epoch":
                        self._writer.add_scalar(name, value, int(row["epoch"]))
                self._writer.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._tensorboard)) from error
        equivariance = f"equivariance {row['train_equivariance']:.4f}  " if "train_equivariance" in row else ""
        skipped = f"  {row['skipped']} skipped" if row.get("skipped") else ""
        self._say(
            f"epoch {row['epoch']:>3}/{self._epochs}  train loss {row['train_loss']:.4f}  {equivariance}"
            f"val loss {row['val_loss']:.4f}  val top-1 {row['val_top1']:6.2%}  lr {row['lr']:.2e}  "
            f"{row['seconds']:.1f} s{skipped}"
        )

    def saved(self) -> None:
        """Write the CSV file: to be called when the checkpoint holds the rows."""
        self._write()

    def close(self) -> None:
        """Close the file for TensorBoard."""
        if self._writer is not None:
            self._writer.close()

    def _write(self) -> None:
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, names)
        table.writeheader()
        table.writerows(self.rows)
        write_text(self._csv, text.getvalue())
