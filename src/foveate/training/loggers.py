"""Loggers of the figures of each epoch: CSV, TensorBoard, Weights & Biases, MLflow, any logger of Lightning's."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from foveate import _checks
from foveate._extras import check_installed
from foveate.io.files import write_text
from foveate.io.streams import printable

__all__ = [
    "CsvLogger",
    "EpochLogger",
    "LightningLogger",
    "LoggerName",
    "Row",
    "TensorBoardLogger",
    "check_loggers",
    "make_loggers",
]

logger = logging.getLogger(__name__)

Row = dict[str, float]
"""The figures of an epoch by name, ``epoch`` among them, counted from 1."""
LoggerName = Literal["csv", "tensorboard", "wandb", "mlflow"]


class EpochLogger:
    """Receives the rows of a training: `start`, then `add` and `saved` for each epoch, then `close`.

    After an interruption `start` is given the rows that the checkpoint holds; later ones come again.
    """

    def start(self, rows: Sequence[Row]) -> None:
        """Begin after ``rows``, the epochs before a resumption."""

    def add(self, row: Row) -> None:
        """Log the row of an epoch."""

    def saved(self, rows: Sequence[Row]) -> None:
        """Note that a checkpoint holds all ``rows``."""

    def close(self, status: str) -> None:
        """End with the status ``success`` or ``failed``."""


class CsvLogger(EpochLogger):
    """``logs/metrics.csv``, rewritten from the rows that a checkpoint holds: none is ever lost or doubled."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "logs" / "metrics.csv"
        self._path.parent.mkdir(exist_ok=True)

    def start(self, rows: Sequence[Row]) -> None:
        """Write the rows of the checkpoint."""
        self.saved(rows)

    def saved(self, rows: Sequence[Row]) -> None:
        """Write all rows."""
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
        table.writeheader()
        table.writerows(rows)
        write_text(self._path, text.getvalue())


class TensorBoardLogger(EpochLogger):
    """``tensorboard/``: a resumed training begins another file, which tells TensorBoard to drop the epochs redone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "tensorboard"
        self._writer: Any = None

    def start(self, rows: Sequence[Row]) -> None:
        """Open a file that continues after ``rows``."""
        folder = str(self._folder)
        if printable(folder) != folder:
            logger.warning("nothing is logged for TensorBoard, whose folders must have names in UTF-8: %s", folder)
            return
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(folder, purge_step=len(rows) + 1)

    def add(self, row: Row) -> None:
        """Write a scalar per column."""
        if self._writer is None:
            return
        try:
            for name, value in row.items():
                if name != "epoch":
                    self._writer.add_scalar(name, value, int(row["epoch"]))
            self._writer.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._folder)) from error

    def close(self, status: str) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


class LightningLogger(EpochLogger):
    """Any logger with Lightning's ``log_metrics``, ``log_hyperparams`` and ``finalize``.

    Args:
        lightning: The logger.
        settings: Logged once as hyperparameters.
    """

    def __init__(self, lightning: Any, settings: Mapping[str, Any]) -> None:
        self._logger, self._settings = lightning, settings

    def start(self, rows: Sequence[Row]) -> None:
        """Log the settings, if it is the beginning."""
        if not rows:
            self._logger.log_hyperparams(dict(self._settings))

    def add(self, row: Row) -> None:
        """Log the row at the step of its epoch."""
        self._logger.log_metrics({name: value for name, value in row.items() if name != "epoch"}, int(row["epoch"]))

    def saved(self, rows: Sequence[Row]) -> None:
        """Have what was logged written, which some loggers keep for a hundred epochs."""
        if callable(save := getattr(self._logger, "save", None)):
            save()

    def close(self, status: str) -> None:
        """Finalize the logger."""
        self._logger.finalize(status)


class ServiceLogger(LightningLogger):
    """A service, which may not be there: that ends no training once it has begun."""

    def start(self, rows: Sequence[Row]) -> None:
        """Log the settings; raise an `OSError` if that fails."""
        try:
            self._start(rows)
        except Exception as error:  # services have errors of their own
            raise OSError(f"logger {self._name} cannot be reached: {error}") from error

    def _start(self, rows: Sequence[Row]) -> None:
        super().start(rows)

    def add(self, row: Row) -> None:
        """Log the row, or warn that it is not logged."""
        with self._warned(f"epoch {row['epoch']}"):
            super().add(row)

    def saved(self, rows: Sequence[Row]) -> None:
        """Have what was logged written."""
        with self._warned("what was logged before"):
            super().saved(rows)

    def close(self, status: str) -> None:
        """Finalize the logger."""
        with self._warned("the end"):
            self._close(status)

    def _close(self, status: str) -> None:
        super().close(status)

    @property
    def _name(self) -> str:
        return type(self._logger).__name__

    @contextmanager
    def _warned(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            logger.warning("%s could not log %s: %s", self._name, what, error)


class WandbLogger(ServiceLogger):
    """Weights & Biases, one run per training: an open run would be taken for that of the next training as well."""

    def _close(self, status: str) -> None:
        try:
            super()._close(status)
        finally:
            self._logger.experiment.finish(exit_code=0 if status == "success" else 1)


def make_loggers(wanted: Sequence[LoggerName | Any], folder: Path, settings: Mapping[str, Any]) -> list[EpochLogger]:
    """Return the loggers ``wanted`` for a training in ``folder``.

    Args:
        wanted: Names, `EpochLogger` objects, and loggers of Lightning's.
        folder: Folder of the run.
        settings: Of the run, logged as hyperparameters.

    Raises:
        ValueError: A name is unknown, or an object is no logger.
        OSError: A file cannot be written, or a service cannot be reached.
        MissingExtraError: The package of a logger is not installed.
    """
    return [_make(one, folder, settings) for one in wanted]


def check_loggers(wanted: Sequence[LoggerName | Any]) -> None:
    """Raise what `make_loggers` would raise, before anything is written."""
    for one in wanted:
        if isinstance(one, str):
            _checks.one_of("logger", one, get_args(LoggerName))
            if one in _LIGHTNING:
                check_installed(one, extra=one)
        elif not isinstance(one, EpochLogger) and not callable(getattr(one, "log_metrics", None)):
            raise ValueError(
                f"logger must be one of {', '.join(get_args(LoggerName))}, a logger of Lightning's, or an EpochLogger; "
                f"got {one!r}"
            )


def _make(wanted: LoggerName | Any, folder: Path, settings: Mapping[str, Any]) -> EpochLogger:
    check_loggers([wanted])
    if isinstance(wanted, EpochLogger):
        return wanted
    if wanted in ("csv", "tensorboard"):
        return CsvLogger(folder) if wanted == "csv" else TensorBoardLogger(folder)
    if not isinstance(wanted, str):
        return LightningLogger(wanted, settings)
    try:
        service = _LIGHTNING[wanted](folder)
    except OSError:  # of the disk
        raise
    except Exception as error:  # services have errors of their own
        raise OSError(f"logger {wanted} cannot be reached: {error}") from error
    return (WandbLogger if wanted == "wandb" else MlflowLogger)(service, settings)


def _wandb(folder: Path) -> Any:
    from lightning.pytorch import loggers

    noted = folder / "logs" / "wandb-run.txt"  # so that a resumed training continues its curves
    noted.parent.mkdir(exist_ok=True)
    run = uuid.uuid4().hex[:16]
    if noted.exists():
        run = noted.read_text(encoding="utf-8").strip()
    elif (folder / "logs" / "wandb").exists():  # begun when a run was called after its folder
        run = hashlib.sha256(str(folder.resolve()).encode(errors="surrogateescape")).hexdigest()[:16]
    write_text(noted, run)
    return loggers.WandbLogger(
        project="foveate", name=str(folder), save_dir=folder / "logs", version=run, resume="allow"
    )


def _mlflow(folder: Path) -> Any:
    from lightning.pytorch.loggers import MLFlowLogger

    noted = folder / "logs" / "mlflow-run.txt"
    noted.parent.mkdir(exist_ok=True)
    known = noted.read_text(encoding="utf-8").strip() if noted.exists() else None
    database = f"sqlite:///{folder / 'logs' / 'mlflow.db'}"
    given = os.environ.get("MLFLOW_TRACKING_URI")
    lightning = MLFlowLogger("foveate", run_name=str(folder), tracking_uri=given or database, run_id=known)
    write_text(noted, str(lightning.run_id))
    if given is None:  # MLflow sets it, and the next training would log to this one's database
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    return lightning


class MlflowLogger(ServiceLogger):
    """MLflow, which refuses to log a setting twice with another value, such as ``resume``."""

    def _start(self, rows: Sequence[Row]) -> None:
        if not self._logger.experiment.get_run(self._logger.run_id).data.params:
            super()._start(rows)


_LIGHTNING: dict[str, Callable[[Path], Any]] = {"wandb": _wandb, "mlflow": _mlflow}
