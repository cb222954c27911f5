"""``foveate evaluate``: what a trained network is worth on images with labels, masks or boxes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from foveate._devices import check_device
from foveate.io.files import writable_file, write_json
from foveate.trained import load
from foveate.trained.loading import check_data_of_run
from foveate.training.recipe import Precision
from foveate.training.settings import DataConfig
from foveate.training.settings_file import with_data_of_run

__all__ = ["EvaluateConfig", "run"]


@dataclass(kw_only=True)
class EvaluateConfig(DataConfig):
    """Evaluate a trained network.

    Attributes:
        checkpoint: A model.safetensors, a .ckpt, or the folder of a run.
        data: As in `foveate train`. Not given: what the run was trained on, else digits.
        data_seed: Not given: that of the run, on the same data, else 0.
        data_options: Not given: those of the run, on the same data.
        split: On which images; train shows how far the training images are learned by heart.
        batch_size: Images per step.
        precision: Arithmetic, as in training.
        json: File to write the figures to.
    """

    checkpoint: str = ""
    data: str = ""
    data_seed: int | None = None  # type: ignore[assignment]
    split: Literal["test", "val", "train"] = "test"
    batch_size: int = 64
    precision: Precision = "32-true"
    json: str | None = None


def run(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate the network at the image size and normalization of its training; print and return the figures.

    Returns:
        The fields of a `foveate.trained.EvaluationResult`, those of the network's task, and ``checkpoint``.

    Raises:
        ValueError: The checkpoint is none, it was trained for other classes, it does not take images of such a size,
            or the data has no such split, or is not given and not what the run was trained on any more.
    """
    if not config.checkpoint:
        raise ValueError("no checkpoint given; name one, as in `foveate evaluate runs/gsa_resnet26-seed-0`")
    of_run = not (config.data or config.data_options) and config.data_seed is None
    config = with_data_of_run(config, config.checkpoint)
    trained = load(config.checkpoint, device=check_device(config.device, config.precision))
    data = config.open(trained.img_size, task=trained.meta.task, intensity_range=trained.meta.intensity_range)
    trained.check_fits(data)
    if of_run:
        check_data_of_run(data, config.checkpoint)
    options: dict[str, Any] = {name: getattr(config, name) for name in ("split", "batch_size", "workers", "precision")}
    if config.json is not None:
        writable_file(Path(config.json))
    found = trained.evaluate(data, **options)
    result = {"checkpoint": config.checkpoint, **dataclasses.asdict(found)}
    if config.json is not None:
        write_json(Path(config.json), result)
    print(found)
    return result
