"""Scores of where trained networks look, against true boxes and against maps that have seen no image."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch.utils.data import Subset

from foveate import _checks
from foveate._devices import on_device
from foveate.data import BoxedImages, ImageData, ImageLoader, InputBoxes, UnreadableImageError, make_loader
from foveate.data.dense import DenseData
from foveate.data.splitting import equally_spaced
from foveate.explain import BASELINES, Fill
from foveate.explain.explanation import METHODS
from foveate.explain.scoring import ORDERS, Measurement, Values, score_baseline, score_network
from foveate.models.inspection import attention_modules
from foveate.stats import RESAMPLES, estimate
from foveate.trained.network import TrainedNetwork
from foveate.trained.region_scoring import SCORES, score_regions

__all__ = ["ScoreSettings", "check_scorable", "score_networks"]


@dataclass(kw_only=True)
class ScoreSettings:
    """Settings of the scores.

    Attributes:
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
    """

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

    def check(self) -> None:
        """Raise a `ValueError` that names the first setting that is out of its range."""
        for name in ("batch_size", "thresholds", "steps"):
            _checks.integer(name, getattr(self, name))
        for name in ("faithful_images", "seed"):
            _checks.integer(name, getattr(self, name), minimum=0)
        _checks.one_of("method", self.method, METHODS)
        _checks.one_of("split", self.split, ("test", "val", "train"))
        for name in ("deletion_fill", "insertion_fill"):
            _checks.one_of(name, getattr(self, name), get_args(Fill))
        if self.images is not None:
            _checks.integer("images", self.images)
        estimate([0.0], confidence=self.confidence)


def score_networks(
    networks: Sequence[TrainedNetwork],
    data: ImageData | DenseData,
    settings: ScoreSettings | None = None,
    *,
    device: torch.device | None = None,
    workers: int = 0,
) -> dict[str, Any]:
    """Score where networks look: classifiers in images with boxes, others in the objects that they are to find.

    Args:
        networks: Trained for one task on images of one size and preparation.
        data: Images with boxes; of segmentation and detection, images as `TrainedNetwork.evaluate` takes them.
        settings: How; the defaults if not given. Those of maps, thresholds and faithfulness are for classifiers.
        device: Where to compute; where the first network is if not given.
        workers: Processes that load images.

    Returns:
        ``images`` (their number), ``without_box``, ``bad_images``, ``image_size``, ``resamples`` and ``networks``; of
        each of these ``checkpoint`` and ``model``. Of classifiers besides ``baselines`` and for each network
        ``module``, ``kind``, ``thresholds``, ``scores``, ``differences`` to the first, and ``faithfulness``. Of others
        ``layers``: of each attention module ``module``, ``kind``, ``scores`` (``inside``: the share of an object's
        attention that stays inside of it, see `foveate.explain.mass_inside`; ``another``: with the weights of
        another image; ``area``: of uniform attention) and ``differences`` of the first from the other two. Scores are
        the fields of `foveate.stats.Estimate`.

    Raises:
        ValueError: A setting is wrong, the networks do not see the same images, they were trained for other classes or
            different tasks, the images have no boxes, or a network that is no classifier has no attention.
    """
    settings = settings or ScoreSettings()
    settings.check()
    check_scorable(networks, settings)
    _check_they_see_the_same(networks)
    for network in networks:
        network.check_fits(data)
    device = device or networks[0].device
    if isinstance(data, DenseData):
        return _score_regions(networks, data, settings, device, workers)
    return _score_maps(networks, data, settings, device, workers)


def _score_regions(
    networks: Sequence[TrainedNetwork], data: DenseData, settings: ScoreSettings, device: torch.device, workers: int
) -> dict[str, Any]:
    measured = [
        score_regions(network, data, split=settings.split, images=settings.images, device=device, workers=workers)
        for network in networks
    ]
    return {
        "images": measured[0].images,
        "without_box": measured[0].empty,
        "bad_images": measured[0].bad_images,
        "image_size": list(data.image_size),
        "resamples": RESAMPLES,
        "networks": [
            {
                "checkpoint": network.source,
                "model": network.meta.model,
                "layers": [
                    {
                        "module": layer.module,
                        "kind": layer.kind,
                        "scores": _estimates(layer.scores, settings),
                        "differences": _estimates(
                            dict.fromkeys(SCORES[1:], layer.scores["inside"]), settings, layer.scores
                        ),
                    }
                    for layer in one.layers
                ],
            }
            for network, one in zip(networks, measured, strict=True)
        ],
    }


def _score_maps(
    networks: Sequence[TrainedNetwork], data: ImageData, settings: ScoreSettings, device: torch.device, workers: int
) -> dict[str, Any]:
    height, width = data.image_size
    if settings.steps > height * width:
        raise ValueError(f"steps must be at most the {height * width} pixels of an image; got {settings.steps}")
    chosen = _choose(data, settings)
    how = Measurement(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(Measurement)})
    faithful = {chosen[place] for place in equally_spaced(len(chosen), settings.faithful_images)}
    measured = []
    for network in networks:
        loader = _loader(network, data, chosen, settings, workers)
        with on_device(network.network, device):
            found = score_network(network.network, loader, how, faithful=faithful, device=device, title=network.source)
        measured.append(found)
    truth = measured[0].truth
    blind = {kind: score_baseline(kind, truth, data.image_size, how) for kind in BASELINES}
    return {
        "images": len(truth),
        "without_box": int(np.isnan(blind["uniform"]["energy"]).sum()),
        "bad_images": measured[0].bad_images,
        "image_size": list(data.image_size),
        "resamples": RESAMPLES,
        "networks": [
            {
                "checkpoint": network.source,
                "model": network.meta.model,
                "module": one.module,
                "kind": one.kind,
                "thresholds": one.thresholds,
                "scores": _estimates(one.scores, settings),
                "differences": _estimates(one.scores, settings, measured[0].scores),
                "faithfulness": _faithfulness(one.areas, settings),
            }
            for network, one in zip(networks, measured, strict=True)
        ],
        "baselines": {kind: _estimates(scores, settings) for kind, scores in blind.items()},
    }


def check_scorable(networks: Sequence[TrainedNetwork], settings: ScoreSettings) -> None:
    """Raise a `ValueError` unless all networks have one task, and attention where settings or task ask for it."""
    first = networks[0]
    for network in networks:
        if network.meta.task != first.meta.task:
            raise ValueError(
                f"networks are compared by the same scores, and {network.source} was trained for {network.meta.task}, "
                f"{first.source} for {first.meta.task}; score them in two calls"
            )
        if not network.names_images and settings.method == "gradcam":
            raise ValueError(f"method: Grad-CAM explains classifiers, and {network.source} is for {network.meta.task}")
        if (settings.method == "attention" or not network.names_images) and not attention_modules(network.network):
            raise ValueError(
                f"{network.source} holds {network.meta.model}, which has no attention; leave it out"
                + (", or give method=auto for Grad-CAM" if network.names_images else "")
            )


def _check_they_see_the_same(networks: Sequence[TrainedNetwork]) -> None:
    """Raise a `ValueError` unless all networks see the same part of the images at the same size."""
    first = networks[0]
    for other in networks[1:]:
        for name in ("img_size", "crop_pct", "fit", "intensity_range"):
            seen, wanted = (one.input_size if name == "img_size" else getattr(one.meta, name) for one in (other, first))
            if name == "intensity_range":
                seen, wanted = (None if one is None else tuple(one) for one in (seen, wanted))
            if seen != wanted:
                raise ValueError(
                    f"networks are compared on the same images, and {other.source} was trained with {name}={seen}, "
                    f"{first.source} with {wanted}; score them in two calls"
                )


def _choose(data: ImageData, settings: ScoreSettings) -> list[int]:
    """Return the indices of the images to score, each of which has a box where it can be read."""
    images = data.split(settings.split)
    if not isinstance(images, BoxedImages):
        raise ValueError(
            f"{data.name} has no boxes, or not for all of its {settings.split} images; give a folder of images with "
            "--boxes FILE.csv or a boxes.csv in it, or --data=digits"
        )
    chosen = equally_spaced(len(images), settings.images)
    for index in chosen:
        with suppress(UnreadableImageError):  # whether it is put up with is for the loader to say
            images.boxes(index)
    return chosen


def _loader(
    network: TrainedNetwork, data: ImageData, chosen: list[int], settings: ScoreSettings, workers: int
) -> ImageLoader:
    """Return the loader of the images ``chosen``, prepared for ``network``, with rows of `InputBoxes`."""
    transform, images = network.transform_of(data), data.split(settings.split)
    assert isinstance(images, BoxedImages)
    return make_loader(
        Subset(InputBoxes(images, transform), chosen),
        transform=transform,
        batch_size=settings.batch_size,
        training=False,
        workers=workers,
        max_bad_images=data.max_bad_images,
    )


def _estimates(values: Values, settings: ScoreSettings, reference: Values | None = None) -> dict[str, Any]:
    """Estimate scores, or by how much those differ that a reference has too."""
    options: dict[str, Any] = {"confidence": settings.confidence, "seed": settings.seed}
    if reference is None:
        found = {name: estimate(one, **options) for name, one in values.items()}
    else:
        found = {name: estimate(one, reference[name], **options) for name, one in values.items() if name in reference}
    return {name: None if one is None else dataclasses.asdict(one) for name, one in found.items()}


def _faithfulness(areas: Values, settings: ScoreSettings) -> dict[str, Any]:
    """Estimate the areas, and by how much that of the map differs from those of the orders without sense."""
    pairs = [(f"{game} map", f"{game} {order}") for game in ("deletion", "insertion") for order in ORDERS if areas]
    own = {f"{ours} - {theirs.split()[1]}": areas[ours] for ours, theirs in pairs}
    others = {f"{ours} - {theirs.split()[1]}": areas[theirs] for ours, theirs in pairs}
    return _estimates(areas, settings) | _estimates(own, settings, others)
