"""``foveate score``: whether networks look at the thing whose box is known, and whether that is what decides."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from torch.utils.data import Subset

from foveate import _checks
from foveate.commands.protocol import DataConfig, environment
from foveate.data import BoxedImages, ImageData, ImageLoader, InputBoxes, UnreadableImageError, make_loader, open_data
from foveate.data.splitting import equally_spaced
from foveate.explain import BASELINES, Fill
from foveate.explain.explanation import METHODS
from foveate.explain.scoring import ORDERS, Measurement, Values, score_baseline, score_network
from foveate.io.files import writable_file, write_json
from foveate.models.inspection import attention_modules
from foveate.report.scores import to_text
from foveate.stats import RESAMPLES, estimate
from foveate.trained import TrainedNetwork, load
from foveate.training import check_device

__all__ = ["ScoreConfig", "run"]

SETTINGS = (
    "boxes",
    "method",
    "thresholds",
    "steps",
    "deletion_fill",
    "insertion_fill",
    "confidence",
    "seed",
    "data_seed",
    "data_options",
)
"""What else the figures depend on, kept with them."""


@dataclass(kw_only=True)
class ScoreConfig(DataConfig):
    """Score where networks look against true boxes and against maps that have seen no image, and how faithfully.

    Attributes:
        checkpoints: For each network a model.safetensors, a .ckpt, or the folder of a run.
        boxes: A CSV file with the boxes of an image folder: file,x_min,y_min,x_max,y_max. Not given: boxes.csv in it.
        split: On which images.
        method: attention, gradcam, or auto: attention where there is any, else Grad-CAM.
        images: On how many of them, at equal distances through the split; all if not given.
        batch_size: Images per step.
        thresholds: At how many thresholds MaxBoxAcc cuts the maps.
        faithful_images: On how many of the images deletion and insertion are measured; 0 leaves them out.
        steps: In how many steps pixels are deleted and inserted.
        deletion_fill: What stands in the place of a deleted pixel, the mean of the image or its blur.
        insertion_fill: What stands in the place of a pixel before it is inserted.
        confidence: Coverage of the intervals.
        seed: Of the intervals, the random maps, and the order among pixels of the same value.
        out: JSON file to write the figures to.
    """

    checkpoints: list[str] = field(default_factory=list)
    boxes: str | None = None
    split: Literal["test", "val", "train"] = "test"
    method: Literal["auto", "attention", "gradcam"] = "auto"
    images: int | None = None
    batch_size: int = 64
    thresholds: int = 100
    faithful_images: int = 256
    steps: int = 16
    deletion_fill: Fill = "mean"
    insertion_fill: Fill = "blur"
    confidence: float = 0.95
    seed: int = 0
    out: str | None = None

    def check(self) -> None:
        """Raise a `ValueError` that names the first setting that is out of its range, data apart."""
        if not self.checkpoints:
            raise ValueError("no checkpoint given; name some, as in `foveate score runs/cram_resnet_tiny-seed-0`")
        for name in ("batch_size", "thresholds", "steps"):
            _checks.integer(name, getattr(self, name))
        for name in ("faithful_images", "seed", "workers"):
            _checks.integer(name, getattr(self, name), minimum=0)
        _checks.one_of("method", self.method, METHODS)
        _checks.one_of("split", self.split, ("test", "val", "train"))
        for name in ("deletion_fill", "insertion_fill"):
            _checks.one_of(name, getattr(self, name), get_args(Fill))
        if self.images is not None:
            _checks.integer("images", self.images)
        estimate([0.0], confidence=self.confidence)

    def open(self, img_size: int | tuple[int, int] | None = None) -> ImageData:
        """Open the images with their boxes, at ``img_size`` if the configuration does not give one."""
        _checks.integer("data_seed", self.data_seed, minimum=0)
        return open_data(
            self.data,
            root=self.root,
            img_size=img_size if self.img_size is None else self.img_size,
            download=self.download,
            seed=self.data_seed,
            max_bad_images=self.max_bad_images,
            options=self.data_options,
            boxes=self.boxes,
            intensity_range=self.intensity_range,
        )


def run(config: ScoreConfig) -> dict[str, Any]:
    """Score the networks, print the figures, write them to ``config.out`` if it is given, and return them.

    Raises:
        ValueError: A setting is wrong, a checkpoint is none, the networks do not see the same images, they were trained
            for other classes, or the images have no boxes.
    """
    config.check()
    device = check_device(config.device, "32-true")
    networks = [load(checkpoint) for checkpoint in config.checkpoints]
    _check_they_see_the_same(networks)
    data = config.open(networks[0].img_size)
    for network in networks:
        network.check_fits(data)
        if config.method == "attention" and not attention_modules(network.network):
            raise ValueError(
                f"{network.source} holds {network.meta.model}, which has no attention; leave it out, or give "
                "method=auto for Grad-CAM"
            )
    height, width = data.image_size
    if config.steps > height * width:
        raise ValueError(f"steps must be at most the {height * width} pixels of an image; got {config.steps}")
    chosen = _choose(data, config)
    if config.out is not None:
        writable_file(Path(config.out))

    how = Measurement(**{field.name: getattr(config, field.name) for field in dataclasses.fields(Measurement)})
    faithful = {chosen[place] for place in equally_spaced(len(chosen), config.faithful_images)}
    measured = [
        score_network(
            network.network,
            _loader(network, data, chosen, config),
            how,
            faithful=faithful,
            device=device,
            title=network.source,
        )
        for network in networks
    ]
    truth = measured[0].truth
    blind = {kind: score_baseline(kind, truth, data.image_size, how) for kind in BASELINES}
    result = {
        "data": config.data,
        "split": config.split,
        "images": len(truth),
        "without_box": int(np.isnan(blind["uniform"]["energy"]).sum()),
        "bad_images": measured[0].bad_images,
        "image_size": list(data.image_size),
        "settings": {**{name: getattr(config, name) for name in SETTINGS}, "resamples": RESAMPLES},
        "networks": [
            {
                "checkpoint": network.source,
                "model": network.meta.model,
                "module": one.module,
                "kind": one.kind,
                "thresholds": one.thresholds,
                "scores": _estimates(one.scores, config),
                "differences": _estimates(one.scores, config, measured[0].scores),
                "faithfulness": _faithfulness(one.areas, config),
            }
            for network, one in zip(networks, measured, strict=True)
        ],
        "baselines": {kind: _estimates(scores, config) for kind, scores in blind.items()},
        "environment": environment(device),
    }
    print(to_text(result))
    if config.out is not None:
        write_json(Path(config.out), result)
    return result


def _check_they_see_the_same(networks: list[TrainedNetwork]) -> None:
    """Raise a `ValueError` unless all networks see the same part of the images at the same size."""
    first = networks[0]
    for other in networks[1:]:
        for name in ("img_size", "crop_pct"):
            seen, wanted = getattr(other.meta, name), getattr(first.meta, name)
            if seen != wanted:
                raise ValueError(
                    f"networks are compared on the same images, and {other.source} was trained with {name}={seen}, "
                    f"{first.source} with {wanted}; score them in two calls"
                )


def _choose(data: ImageData, config: ScoreConfig) -> list[int]:
    """Return the indices of the images to score, each of which has a box where it can be read."""
    images = data.split(config.split)
    if not isinstance(images, BoxedImages):
        raise ValueError(
            f"{data.name} has no boxes, or not for all of its {config.split} images; give a folder of images with "
            "--boxes FILE.csv or a boxes.csv in it, or --data=digits"
        )
    chosen = equally_spaced(len(images), config.images)
    for index in chosen:
        with suppress(UnreadableImageError):  # whether it is put up with is for the loader to say
            images.boxes(index)
    return chosen


def _loader(network: TrainedNetwork, data: ImageData, chosen: list[int], config: ScoreConfig) -> ImageLoader:
    """Return the loader of the images ``chosen``, prepared for ``network``, with rows of `InputBoxes`."""
    transform, images = network.transform_of(data), data.split(config.split)
    assert isinstance(images, BoxedImages)
    return make_loader(
        Subset(InputBoxes(images, transform), chosen),
        transform=transform,
        batch_size=config.batch_size,
        training=False,
        workers=config.workers,
        max_bad_images=data.max_bad_images,
    )


def _estimates(values: Values, config: ScoreConfig, reference: Values | None = None) -> dict[str, Any]:
    """Estimate scores, or by how much those differ that a reference has too."""
    options: dict[str, Any] = {"confidence": config.confidence, "seed": config.seed}
    if reference is None:
        found = {name: estimate(one, **options) for name, one in values.items()}
    else:
        found = {name: estimate(one, reference[name], **options) for name, one in values.items() if name in reference}
    return {name: None if one is None else dataclasses.asdict(one) for name, one in found.items()}


def _faithfulness(areas: Values, config: ScoreConfig) -> dict[str, Any]:
    """Estimate the areas, and by how much that of the map differs from those of the orders without sense."""
    pairs = [(f"{game} map", f"{game} {order}") for game in ("deletion", "insertion") for order in ORDERS if areas]
    own = {f"{ours} - {theirs.split()[1]}": areas[ours] for ours, theirs in pairs}
    others = {f"{ours} - {theirs.split()[1]}": areas[theirs] for ours, theirs in pairs}
    return _estimates(areas, config) | _estimates(own, config, others)
