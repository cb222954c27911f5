"""``foveate score``: whether networks look at the thing whose box is known, and whether that is what decides."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foveate import _checks
from foveate._devices import check_device
from foveate.io.environment import environment
from foveate.io.files import writable_file, write_json
from foveate.report.scores import to_text
from foveate.trained import load
from foveate.trained.loading import check_data_of_run
from foveate.trained.scoring import ScoreSettings, check_scorable, score_networks
from foveate.training.settings import DataConfig
from foveate.training.settings_file import with_data_of_run

__all__ = ["ScoreConfig", "run"]

SETTINGS = (
    *("boxes", "method", "thresholds", "steps", "deletion_fill", "insertion_fill", "confidence", "seed"),
    *("data_seed", "data_options"),
)
"""What the figures depend on besides data and networks, kept with them."""


@dataclass(kw_only=True)
class ScoreConfig(ScoreSettings, DataConfig):
    """Score where networks look against true boxes and against maps that have seen no image, and how faithfully.

    Of networks for segmentation and detection: how much of what an object attends to lies inside of it.

    Attributes:
        checkpoints: For each network a model.safetensors, a .ckpt, or the folder of a run.
        data: As in `foveate train`. Not given: what the first run was trained on, else digits.
        data_seed: Not given: that of the run, on the same data, else 0.
        data_options: Not given: those of the run, on the same data.
        boxes: A CSV file with the boxes of an image folder: file,x_min,y_min,x_max,y_max. Not given: boxes.csv in it.
        out: JSON file to write the figures to.
    """

    checkpoints: list[str] = field(default_factory=list)
    data: str = ""
    data_seed: int | None = None  # type: ignore[assignment]
    boxes: str | None = None
    out: str | None = None

    def check(self) -> None:
        """Raise a `ValueError` that names the first setting that is out of its range, data apart."""
        if not self.checkpoints:
            raise ValueError("no checkpoint given; name some, as in `foveate score runs/cram_resnet_tiny-seed-0`")
        _checks.integer("workers", self.workers, minimum=0)
        super().check()

    def open(self, img_size: int | tuple[int, int] | None = None, **given: Any) -> Any:
        """Open the images with their boxes, those of a file if classifiers are to be scored."""
        if self.boxes is not None and given.get("task", "classification") != "classification":
            raise ValueError("boxes: a file of one box per image is for classifiers; other tasks have their own")
        return super().open(img_size, **{"boxes": self.boxes, **given})


def run(config: ScoreConfig) -> dict[str, Any]:
    """Score the networks, print the figures, write them to ``config.out`` if it is given, and return them.

    Raises:
        ValueError: A checkpoint is none, or as `score_networks` raises it.
    """
    config.check()
    of_run = not (config.data or config.data_options) and config.data_seed is None
    config = with_data_of_run(config, config.checkpoints[0])
    device = check_device(config.device, "32-true")
    networks = [load(checkpoint) for checkpoint in config.checkpoints]
    check_scorable(networks, config)
    meta = networks[0].meta
    data = config.open(networks[0].img_size, task=meta.task, intensity_range=meta.intensity_range)
    if of_run:
        check_data_of_run(data, config.checkpoints[0])
    if config.out is not None:
        writable_file(Path(config.out))
    found = score_networks(networks, data, config, device=device, workers=config.workers)
    resamples = found.pop("resamples")
    result = {
        "data": config.data,
        "split": config.split,
        **{name: found.pop(name) for name in ("images", "without_box", "bad_images", "image_size")},
        "settings": {**{name: getattr(config, name) for name in SETTINGS}, "resamples": resamples},
        **found,
        "environment": environment(device),
    }
    if config.out is not None:
        write_json(Path(config.out), result)
    print(to_text(result))
    return result
