"""``foveate explain``: what networks predict for images, and where they look."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from foveate import _checks
from foveate._devices import check_device
from foveate._option import Option
from foveate.data.given import find_images
from foveate.explain.explanation import METHODS
from foveate.trained import build, load, told_apart
from foveate.trained.explaining_files import NUMBERS, How, explain_files

__all__ = ["NUMBERS", "ExplainConfig", "run"]

OF_MODELS = ("pretrained", "seed", "num_classes", "img_size", "model_args")
"""Settings of networks that are named, not loaded from a checkpoint."""


@dataclass(kw_only=True)
class ExplainConfig:
    """Show what networks predict for images and where they look, as pictures and as numbers.

    Attributes:
        images: Image files, and folders of them.
        checkpoint: Of a trained network, a model.safetensors, a .ckpt or the folder of a run; repeat it to compare.
        model: Name of a network of timm's or ours, untrained or with --pretrained; repeat it to compare.
        model_args: Keywords for the networks in --model, as in {stem: small}.
        num_classes: Classes of the networks in --model.
        img_size: Size of the images that those see, one number or [height, width]; what timm has for them if not given.
        pretrained: Give those the weights that timm has for them, fetched if need be.
        seed: Of the weights of untrained networks.
        out: Folder to write to.
        method: attention, gradcam, or auto, which is attention where there is any and Grad-CAM elsewhere.
        layers: Names of the modules to show, repeated, or all; not given, the last one at each resolution.
        query: Pixel [row, column] of the image whose attention is shown, where attention differs from pixel to pixel;
            of a segmentation network, also its class.
        box: Box [x_min, y_min, x_max, y_max] in pixels of the image, in place of query: the attention of all positions
            in it together.
        max_images: Show only so many, at equal distances through those given.
        overlays: Write every layer's picture also at the image's own size.
        device: auto (a CUDA GPU if there is one, else the CPU), cpu, cuda, or mps (the GPU of a Mac).
    """

    images: list[str] = field(default_factory=list)
    checkpoint: list[str] = field(default_factory=list)
    model: list[str] = field(default_factory=list)
    model_args: dict[str, Option] = field(default_factory=dict)
    num_classes: int | None = None
    img_size: int | tuple[int, int] | None = None
    pretrained: bool = False
    seed: int = 0
    out: str = "explained"
    method: Literal["auto", "attention", "gradcam"] = "auto"
    layers: list[str] = field(default_factory=list)
    query: tuple[int, int] | None = None
    box: tuple[float, float, float, float] | None = None
    max_images: int | None = None
    overlays: bool = False
    device: str = "auto"

    def check(self) -> None:
        """Raise a `ValueError` that names the first setting that is out of its range."""
        if not self.images:
            raise ValueError("images: none given; name some, as in `foveate explain photo.jpg --checkpoint runs/mine`")
        if not self.checkpoint and not self.model:
            raise ValueError("checkpoint: no network given; name one with --checkpoint, or by --model")
        fresh = type(self)()
        for name in OF_MODELS if not self.model else ():
            if getattr(self, name) != getattr(fresh, name):
                raise ValueError(f"{name} is for the networks in --model, and none is named there; leave it out")
        _checks.one_of("method", self.method, METHODS)
        if self.num_classes is not None:
            _checks.integer("num_classes", self.num_classes)
        _checks.integer("seed", self.seed, minimum=0)
        if self.img_size is not None:
            _checks.pair("img_size", self.img_size)
        if self.query is not None:
            _checks.pair("query", self.query, minimum=0)
        if self.max_images is not None:
            _checks.integer("max_images", self.max_images)


def run(config: ExplainConfig) -> dict[str, Any]:
    """Explain the images; see `foveate.trained.explaining_files.explain_files`. Return the numbers."""
    config.check()
    device = check_device(config.device)
    given = find_images(config.images, config.max_images)
    options: dict[str, Any] = {name: getattr(config, name) for name in OF_MODELS}
    loaded = [load(checkpoint, device=device) for checkpoint in config.checkpoint]
    networks = told_apart([*loaded, *(build(name, device=device, **options) for name in config.model)])
    how = How(config.query, config.box, config.layers, config.method, config.overlays)
    found = explain_files(given, networks, config.out, how, settings=dataclasses.asdict(config), say=print)
    images, bad = len(found.numbers["images"]), len(found.numbers["bad_images"])
    unread = f"; {bad} could not be read" if bad else ""
    unread += f"; {found.unlike} looked unlike what a network was trained on" if found.unlike else ""
    print(
        f"{images} image{'s' * (images > 1)} explained{unread}; pictures and {NUMBERS} are in {config.out}", flush=True
    )
    return found.numbers
