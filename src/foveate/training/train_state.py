"""The state of a training, and the checkpoint files that hold it."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from foveate.io.files import write_bytes

__all__ = [
    "BEST",
    "LAST",
    "PREVIOUS",
    "TrainState",
    "find_checkpoint",
    "read_checkpoint",
    "this_job",
    "write_checkpoint",
]

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
"""Names of the checkpoints in the folder of a run: the newest, the one before it, and that of the best epoch."""

PARTS = {"progress": dict, "history": list, "loader": dict, "state_dict": dict, "optimizer": dict, "scaler": dict}
"""What a checkpoint holds."""


@dataclass
class TrainState:
    """Position and running sums of a training: the loop's own state.

    Attributes:
        epoch: Epochs that are complete.
        batch: Batches that are done in the next epoch.
        updates: Updates so far, skipped ones included: what the schedule counts.
        skipped: Updates that were skipped.
        seconds: Time spent in the current epoch.
        images: Images of that epoch so far.
        sums: Sums of the losses over these images, by name.
        skipped_in_epoch: Updates that were skipped in the current epoch.
        stopped: Whether a callback has ended the training.
    """

    epoch: int = 0
    batch: int = 0
    updates: int = 0
    skipped: int = 0
    seconds: float = 0.0
    images: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    skipped_in_epoch: int = 0
    stopped: bool = False

    def add(self, images: int, means: Mapping[str, float]) -> None:
        """Count a batch of so many images, with the means over them."""
        self.images += images
        for name, mean in means.items():
            self.sums[name] = self.sums.get(name, 0.0) + images * mean

    def means(self) -> dict[str, float]:
        """Return the means over the images of the epoch so far; NaN where every update was skipped."""
        return {name: total / self.images if self.images else float("nan") for name, total in self.sums.items()}

    def next_epoch(self, *, stopped: bool = False) -> None:
        """Begin the next epoch, or end after this one."""
        fresh = TrainState(epoch=self.epoch + 1, updates=self.updates, skipped=self.skipped, stopped=stopped)
        vars(self).update(vars(fresh))


def write_checkpoint(folder: Path, content: dict[str, Any], *, best: bool = False) -> None:
    """Write ``last.ckpt``, the former one becoming ``previous.ckpt``; and ``best.ckpt`` before it if asked to.

    Raises:
        OSError: One cannot be written; those that were there are still.
    """
    buffer = io.BytesIO()
    torch.save({**content, "job": this_job()}, buffer)
    if best:
        write_bytes(folder / BEST, buffer.getbuffer())
    write_bytes(folder / LAST, buffer.getbuffer(), keep=folder / PREVIOUS)


def this_job() -> str:
    """Name the job of torchrun's that this process is of, the same when it is started again; else nothing.

    Without an ``--rdzv_id`` that is one torchrun, which has a folder for its logs alone: RUN/attempt_N/RANK/error.json.
    """
    job, log = (os.environ.get(f"TORCHELASTIC_{name}", "") for name in ("RUN_ID", "ERROR_FILE"))
    return f"{job} {Path(log).parents[2] if log else os.getppid()}" if job == "none" else job


def find_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint in ``folder``; None if there is none.

    Between two files being moved there is a ``previous.ckpt`` alone.
    """
    return next((folder / name for name in (LAST, PREVIOUS) if (folder / name).exists()), None)


def read_checkpoint(folder: Path) -> tuple[dict[str, Any], str]:
    """Return the newest checkpoint in ``folder`` that is whole, and what is wrong with a newer one, if there is one.

    Raises:
        ValueError: There is none that is whole.
    """
    complaint = ""
    for name in (LAST, PREVIOUS):
        if not (folder / name).exists():
            continue
        try:
            return _read(folder / name), complaint
        except ValueError as error:
            complaint = complaint or str(error)
    raise ValueError(f"{complaint or f'{folder / LAST} is missing'}; delete it, or give another `out`")


def _read(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not look at the check sums
            if archive.testzip() is not None:
                raise zipfile.BadZipFile
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on damaged bytes the unpickler raises nearly anything
        raise ValueError(f"{path} is damaged, or not of a run") from error
    if not isinstance(content, dict) or any(not isinstance(content.get(key), kind) for key, kind in PARTS.items()):
        raise ValueError(f"{path} is damaged, or not of a run")
    return content
