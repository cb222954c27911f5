"""A task of a user's own, one class, is trained, resumed and compared as the library's own is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import foveate
from foveate.data import BoxedImages, LabelledImages
from foveate.io import load_network
from foveate.models.inspection import dry_run
from foveate.tasks import TASKS, Metrics, Task, find_task, register_task
from foveate.training.train_state import read_checkpoint

TINY: dict[str, Any] = {"size": 16, "clutter": 1, "length": 48, "val_length": 20, "test_length": 21}
SETTINGS: dict[str, Any] = {"data_options": TINY, "epochs": 3, "batch_size": 8, "device": "cpu", "lr": 5e-3}


@dataclass(frozen=True)
class CentersFound:
    closeness: float
    scores: list[float]


class CenterMetrics(Metrics):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.found.append(closeness(outputs, targets))

    def compute(self) -> dict[str, float]:
        found, self.found = torch.cat(self.found), []
        return {"closeness": found.mean().item()}


class Centers:
    """The centers of the digits, as fractions of the side, in place of their classes."""

    def __init__(self, images: BoxedImages) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        image, _ = self.images[index]
        left, top, right, bottom = self.images.boxes(index)
        return image, torch.tensor([(left + right) / 2 / image.width, (top + bottom) / 2 / image.height])


class FindCenter(Task):
    """Where the digit is."""

    name: ClassVar[str] = "find-center"
    metric: ClassVar[str] = "closeness"
    metric_title: ClassVar[str] = "closeness"

    @property
    def outputs(self) -> Sequence[str]:
        return ["x", "y"]

    def samples(self, images: LabelledImages) -> Centers:
        assert isinstance(images, BoxedImages)
        return Centers(images)

    def check_network(self, name: str, network: nn.Module, img_size: tuple[int, int]) -> None:
        if dry_run(network, (3, *img_size), lambda twin, image: twin(image), name=name).shape != (1, 2):
            raise ValueError(f"{name} does not give two numbers")

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs, targets)

    def metrics(self) -> Metrics:
        return CenterMetrics()

    def evaluate(self, outputs: Tensor, targets: Tensor) -> CentersFound:
        found = closeness(outputs, targets)
        return CentersFound(found.mean().item(), found.tolist())


def closeness(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return 1 less the distance, in sides of the image, at least 0."""
    return (1 - (outputs - targets).norm(dim=1)).clamp(min=0).cpu()


@pytest.mark.slow
def test_it_is_trained_and_its_best_epoch_is_by_its_metric(tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = foveate.train("test_resnet", task=FindCenter, out=str(out), verbose=False, **SETTINGS)
    closest = [row["val_closeness"] for row in result.history]
    best = max(range(3), key=lambda epoch: closest[epoch])
    assert read_checkpoint(out)[0]["progress"]["epoch"] == 3
    assert torch.load(out / "best.ckpt", weights_only=True)["progress"]["epoch"] == best + 1
    network, meta = load_network(out)
    assert (list(meta.classes), meta.task) == (["x", "y"], "find-center")
    data = foveate.TrainConfig(model="test_resnet", **SETTINGS).open()
    assert data.test is not None
    test = next(iter(data.loaders(batch_size=21, samples=FindCenter(data.classes).samples).test))
    with torch.inference_mode():
        expected = closeness(network(test[0]), test[1])
    assert result.content["scores"] == pytest.approx(expected.tolist(), abs=1e-6)
    assert result.metrics == {"closeness": pytest.approx(expected.mean().item(), abs=1e-6)}
    assert result.history[-1]["train_loss"] < 0.5 * result.history[0]["train_loss"]
    with pytest.raises(ValueError, match="find-center"):
        foveate.load(out)


@pytest.mark.slow
def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    class Stop:
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 8:
                raise KeyboardInterrupt

    how: dict[str, Any] = {"task": FindCenter, "verbose": False, "checkpoint_updates": 1, **SETTINGS}
    whole = foveate.train("test_resnet", out=str(tmp_path / "whole"), **how)
    with pytest.raises(KeyboardInterrupt):
        foveate.train("test_resnet", out=str(tmp_path / "parts"), callbacks=[Stop()], **how)
    parts = foveate.train("test_resnet", out=str(tmp_path / "parts"), resume=True, **how)
    first, second = (load_network(result.folder)[0].state_dict() for result in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert whole.content["scores"] == parts.content["scores"]


@pytest.mark.slow
def test_networks_are_compared_by_its_metric_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "compared"
    how: dict[str, Any] = {**SETTINGS, "epochs": 1, "seeds": 2}
    table = foveate.compare(["test_resnet", "conv_resnet_tiny"], task=FindCenter, out=str(out), **how)
    assert table["metric"] == "closeness"
    runs = [
        [json.loads((out / folder / "result.json").read_text()) for folder in one["runs"]] for one in table["networks"]
    ]
    means = [sum(sum(run["scores"]) / 21 for run in two) / 2 for two in runs]
    assert [one["closeness"]["mean"] for one in table["networks"]] == pytest.approx(means)
    assert table["networks"][1]["difference"]["mean"] == pytest.approx(means[1] - means[0])
    assert f"{100 * means[0]:.2f}" in capsys.readouterr().out


def test_what_is_no_task_is_refused(tmp_path: Path) -> None:
    register_task(FindCenter)
    assert find_task("find-center") is FindCenter
    with pytest.raises(ValueError, match="task"):
        find_task("find-centre")
    with pytest.raises(ValueError, match="task"):
        foveate.train("test_resnet", task=nn.Linear, out=str(tmp_path / "x"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="task"):
        foveate.train("test_resnet", task="segmentatoin", out=str(tmp_path / "x"))

    class Other(FindCenter):
        pass

    with pytest.raises(ValueError, match="find-center"):
        register_task(Other)
    again = type("FindCenter", (FindCenter,), {"__module__": FindCenter.__module__})
    assert register_task(again) is find_task("find-center") is again  # defined again, as in a notebook
    register_task(FindCenter)
    assert not (tmp_path / "x").exists()
    assert timm.is_model("test_resnet")
    assert set(TASKS) >= {"classification", "find-center"}
