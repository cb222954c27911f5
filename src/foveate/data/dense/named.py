"""Sets with masks or boxes that torchvision knows by name; only their lists of files are taken from there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foveate._paths import expanded
from foveate.data.decoding import BadImage
from foveate.data.dense.coco import open_coco
from foveate.data.dense.masks import MaskClasses, MaskSample
from foveate.data.dense.parts import TargetImages
from foveate.data.dense.voc import annotated_samples, read_annotation
from foveate.data.named import VAL_FRACTION, build
from foveate.data.splitting import stratified_split

__all__ = ["NAMED_DETECTION", "NAMED_SEGMENTATION", "open_named_dense"]

NAMED_SEGMENTATION = ("torchvision/VOCSegmentation", "torchvision/OxfordIIITPet")
NAMED_DETECTION = ("torchvision/VOCDetection", "torchvision/CocoDetection")

VOC = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
TRIMAP = {1: "pet", 2: "background", 3: "border"}
"""The values of Oxford-IIIT Pet's masks. The border is a strip around the animal, of both."""

Parts = tuple[tuple[str, ...], list[TargetImages | None]]


def open_named_dense(name: str, *, root: str | Path, download: bool = False, seed: int = 0) -> Parts:
    """Return classes and splits of a set of `NAMED_SEGMENTATION` or `NAMED_DETECTION`.

    VOC has no test images with annotations; its year is 2012. Of Oxford-IIIT Pet a tenth of the training images of each
    breed, chosen by ``seed``, is kept for validation.
    """
    root = expanded(root)
    if name == "torchvision/CocoDetection":
        if download or not root.is_dir():
            raise ValueError(f"{name} is not downloaded; give as root the folder that holds it, got {root}")
        return open_coco(root, seed=seed, options={}, intensity_range=None)
    if download:
        root.mkdir(parents=True, exist_ok=True)
    if name == "torchvision/OxfordIIITPet":
        return _pets(name, root, download, seed)
    splits = [
        build(name, {"image_set": split}, root, download=download and split == "train", fetched=True)
        for split in ("train", "val")  # one archive has both
    ]
    if name == "torchvision/VOCSegmentation":
        classes = MaskClasses.of(dict(enumerate(("background", *VOC))))
        return classes.names, [*(_masks(each.images, each.masks, classes, root) for each in splits), None]
    return VOC, [*(_boxes(each.images, each.annotations, root) for each in splits), None]


def _pets(name: str, root: Path, download: bool, seed: int) -> Parts:
    train, test = (
        build(name, {"split": split}, root, download=download, fetched=True) for split in ("trainval", "test")
    )
    classes = MaskClasses.of(TRIMAP)
    kept, held = stratified_split(train._labels, (1 - VAL_FRACTION, VAL_FRACTION), seed=seed)
    if not len(held):
        raise ValueError(f"{name} in {root} has too few images to keep {VAL_FRACTION:.0%} of each breed for validation")
    parts = [(train, kept), (train, held), (test, np.arange(len(test)))]
    return classes.names, [
        _masks([each._images[i] for i in chosen], [each._segs[i] for i in chosen], classes, root)
        for each, chosen in parts
    ]


def _masks(images: Iterable[Any], masks: Iterable[Any], classes: MaskClasses, root: Path) -> TargetImages:
    samples = []
    for image, mask in zip(map(str, images), map(str, masks), strict=True):
        absent = next((path for path in (image, mask) if not os.path.isfile(path)), None)
        samples.append(MaskSample(image, mask, classes, BadImage(absent, "there is no such file") if absent else None))
    return TargetImages(samples, root=root)


def _boxes(images: Sequence[str], annotations: Sequence[str], root: Path) -> TargetImages:
    read = [(image, xml, read_annotation(xml)) for image, xml in zip(images, annotations, strict=True)]
    return TargetImages(annotated_samples(read, VOC, set(filter(os.path.isfile, images))), root=root)
