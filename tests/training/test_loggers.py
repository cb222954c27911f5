"""Loggers of a training: Lightning's, services that are down, and one's own."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.stopping import StopAt
from tests.training.short import SETTINGS, TINY

import foveate
from foveate.training import EpochLogger
from foveate.training.loggers import _LIGHTNING, make_loggers


@pytest.mark.slow
def test_several_loggers_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    rows: list[dict[str, float]] = []

    class Own(EpochLogger):
        def add(self, row: dict[str, float]) -> None:
            rows.append(dict(row))

    class LikeLightnings:
        def __init__(self) -> None:
            self.metrics: list[Any] = []
            self.ended = ""

        def log_hyperparams(self, params: dict[str, Any]) -> None:
            assert params["model"] == "test_resnet"

        def log_metrics(self, metrics: dict[str, float], step: int) -> None:
            self.metrics.append((step, metrics))

        def finalize(self, status: str) -> None:
            self.ended = status

    other, out = LikeLightnings(), tmp_path / "run"
    loggers = ["csv", "tensorboard", "wandb", "mlflow", Own(), other]
    result = foveate.train("test_resnet", logger=loggers, out=str(out), data_options=TINY, **SETTINGS)
    assert rows == result.history
    assert [(step, {"epoch": step, **metrics}) for step, metrics in other.metrics] == list(enumerate(rows, 1))
    assert other.ended == "success"
    with (out / "logs" / "metrics.csv").open() as file:
        assert [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)] == rows
    losses = EventAccumulator(str(out / "tensorboard")).Reload().Scalars("val_loss")
    assert [event.value for event in losses] == pytest.approx([row["val_loss"] for row in rows])
    from mlflow import MlflowClient

    run = (out / "logs" / "mlflow-run.txt").read_text()
    client = MlflowClient(f"sqlite:///{out / 'logs' / 'mlflow.db'}")
    assert [point.value for point in client.get_metric_history(run, "val_loss")] == [row["val_loss"] for row in rows]
    foveate.train("test_resnet", logger=["wandb"], out=str(tmp_path / "next"), data_options=TINY, **SETTINGS)
    for folder in (out, tmp_path / "next"):  # each training its own run
        assert len(list((folder / "logs" / "wandb").glob("offline-run-*/*.wandb"))) == 1
    settings = json.loads((out / "result.json").read_text())["config"]
    assert settings["logger"] == ["csv", "tensorboard", "wandb", "mlflow"]


def test_a_service_that_is_down_ends_no_training(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Down:
        def __getattr__(self, name: str) -> Any:
            raise ConnectionError("nobody answers")

    def broken(folder: Path) -> Any:
        raise Exception("no login")

    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(_LIGHTNING, name, lambda folder: Down())
        (service,) = make_loggers([name], Path(), {})
        with pytest.raises(OSError, match="nobody answers"):
            service.start([])
        caplog.clear()
        service.add({"epoch": 1, "val_loss": 2.0})
        service.saved([])
        service.close("success")
        assert [record.levelname for record in caplog.records] == ["WARNING"] * len(caplog.records)
        assert "epoch 1" in caplog.text
        monkeypatch.setitem(_LIGHTNING, name, broken)
        with pytest.raises(OSError, match=f"{name}.*no login"):
            make_loggers([name], Path(), {})


def test_lightnings_own_file_holds_every_epoch_that_is_saved(tmp_path: Path) -> None:
    (own,) = make_loggers([CSVLogger(tmp_path)], Path(), {})
    own.start([])
    own.add({"epoch": 1, "val_loss": 2.0})
    own.saved([])
    assert "2.0" in next(tmp_path.rglob("metrics.csv")).read_text()


@pytest.mark.slow
def test_a_run_that_was_interrupted_in_its_first_epoch_goes_on_with_mlflow(tmp_path: Path) -> None:
    how: dict[str, Any] = {"logger": ["mlflow"], "out": tmp_path / "run", "data_options": TINY, **SETTINGS}
    with pytest.raises(KeyboardInterrupt, match="resume=True"):
        foveate.train("test_resnet", callbacks=StopAt(1), **how)
    result = foveate.train("test_resnet", resume=True, **how)
    from mlflow import MlflowClient

    run = (tmp_path / "run" / "logs" / "mlflow-run.txt").read_text()
    points = MlflowClient(f"sqlite:///{tmp_path / 'run' / 'logs' / 'mlflow.db'}").get_metric_history(run, "val_loss")
    assert [point.value for point in points] == [row["val_loss"] for row in result.history]


@pytest.mark.slow
def test_without_loggers_nothing_is_logged(tmp_path: Path) -> None:
    out = tmp_path / "run"
    foveate.train("test_resnet", logger=[], out=str(out), data_options=TINY, **SETTINGS)
    assert not (out / "logs").exists()
    assert not (out / "tensorboard").exists()


def test_a_missing_logger_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = foveate._extras.importlib.util.find_spec  # type: ignore[attr-defined]
    monkeypatch.setattr(
        foveate._extras.importlib.util,  # type: ignore[attr-defined]
        "find_spec",
        lambda name, *rest: None if name == "wandb" else find(name, *rest),
    )
    with pytest.raises(ImportError, match=r"foveate\[wandb\]"):
        foveate.train("test_resnet", logger=["wandb"], out=str(tmp_path / "x"), data_options=TINY, **SETTINGS)
    assert not (tmp_path / "x").exists()
