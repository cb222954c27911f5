"""The report's inputs and maps are those of the evaluation, where images are padded as well."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import timm
import torch
from PIL import Image, ImageColor

import foveate
from foveate.data import TransformConfig, make_transform
from foveate.data.dense import open_detection, open_segmentation
from foveate.data.dense.joint import Evaluation
from foveate.explain.painting import class_color
from foveate.io import NetworkMeta
from foveate.models.dense import build_with_head
from foveate.nn import GatedAttention
from foveate.report.grid import _record, choose_samples
from foveate.report.page import _class_colors
from foveate.report.samples import Sample, extent_of, renormalized

META = NetworkMeta(
    model="resnet26d",
    kwargs={},
    classes=["one"],
    img_size=(20, 32),
    mean=(0.7, 0.1, 0.3),
    std=(0.1, 0.2, 0.3),
    crop_pct=1.0,
    interpolation="bilinear",
)


def prepared(image: Image.Image, transform: TransformConfig) -> torch.Tensor:
    if transform.fit != "pad":
        return make_transform(transform, training=False)(image)
    return Evaluation(transform)(image, np.zeros((image.height, image.width), np.uint8))[0]  # as with masks


@pytest.mark.parametrize("fit", ["pad", "crop", "squash"])
@pytest.mark.parametrize("size", [(13, 37), (37, 23), (11, 53)])
def test_an_input_is_renormalized_as_if_it_had_been_prepared_so(fit: str, size: tuple[int, int]) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    transform = TransformConfig(img_size=(20, 32), fit=fit, crop_pct=1.0, mean=(0.5, 0.4, 0.3), std=(0.3, 0.2, 0.1))
    tensor = prepared(image, transform)
    sample = Sample(0, 0, "", tensor, extent_of(transform, image), image, "", False)
    expected = prepared(image, transform.replace(mean=META.mean, std=META.std))
    assert ((expected == 0).all(0).any()) == (fit == "pad")
    torch.testing.assert_close(renormalized(sample, transform, META), expected, atol=1e-5, rtol=1e-5)
    same = dataclasses.replace(META, mean=transform.mean, std=transform.std)
    assert renormalized(sample, transform, same) is tensor


@pytest.mark.parametrize("size", [(44, 44), (36, 52), (72, 72)])
def test_the_outline_of_a_radius_is_around_the_peak_of_its_map(size: tuple[int, int]) -> None:
    network, _ = build_with_head(
        "expatt_resnet_tiny", "unet", num_classes=3, img_size=(64, 64), head_args={"decoder_channels": [8, 8, 8]}
    )
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    record = _record(network.eval(), images)
    assert record is not None
    assert record.query is not None
    peak = divmod(int(record.map[0].argmax()), record.map.shape[2])
    assert record.position(record.query) == peak


class Still(GatedAttention):
    """The same gate for all images."""

    depends_on_content = False

    def __init__(self, dim: int, *, device: object = None, dtype: object = None) -> None:
        super().__init__()
        self.level = torch.nn.Parameter(torch.zeros(()))

    def attention_map(self, x: torch.Tensor) -> torch.Tensor:
        return self.level.sigmoid().expand(len(x), 1, *x.shape[2:])


def test_a_gate_that_is_the_same_for_all_images_is_shown() -> None:
    network = foveate.insert(timm.create_model("test_resnet", num_classes=3), Still, at=-2).eval()
    record = _record(network, torch.randn(2, 3, 32, 32))
    assert record is not None
    assert record.query is None
    assert record.map.unique().tolist() == [0.5]


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_the_colors_of_classes_of_pixels_are_named(task: str) -> None:
    opened = open_segmentation if task == "segmentation" else open_detection
    data = opened("digits", options={"size": 48, "length": 3, "val_length": 3, "test_length": 3})
    colors = _class_colors(data, choose_samples(data, "val", 2))
    drawn = {name: ImageColor.getrgb(color) for name, color in colors.items()}
    names = data.classes if task == "segmentation" else []  # the boxes of objects have their names
    assert drawn == {name: class_color(index) for index, name in enumerate(names)}
