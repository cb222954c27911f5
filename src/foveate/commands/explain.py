"""``foveate explain``: what networks predict for images, and where they look."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image

from foveate import _checks
from foveate.commands._option import Option
from foveate.commands.explain_images import GivenImage, find_images, read_upright, slugs, upright_size
from foveate.commands.explain_networks import ExplainedNetwork, load_networks
from foveate.commands.explain_numbers import finding_numbers, network_numbers
from foveate.commands.explain_pictures import (
    Comparison,
    Finding,
    check_ours,
    compare_sheet,
    comparison,
    image_sheet,
    own_size,
    write_png,
)
from foveate.commands.protocol import environment
from foveate.data import BadImage, Placement, UnreadableImageError, make_transform, placement
from foveate.explain.explanation import METHODS
from foveate.io.files import read_json, writable_folder, write_json
from foveate.training import check_device

__all__ = ["NUMBERS", "ExplainConfig", "run"]

NUMBERS = "explanation.json"
ROWS = 8
"""Images on a sheet that compares."""
MAX_RESIZED = 1 << 27
"""Most pixels that an image may have when its shorter side has been resized to that of a network's input."""
OURS = "foveate explain"


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
        query: Pixel [row, column] of the image whose attention is shown, where attention differs from pixel to pixel.
        max_images: Show only so many, at equal distances through those given.
        overlays: Write every layer's picture also at the image's own size.
        device: auto (a CUDA GPU if there is one, else the CPU), cpu, cuda, or mps (the GPU of a Mac).
    """

    images: list[str] = field(default_factory=list)
    checkpoint: list[str] = field(default_factory=list)
    model: list[str] = field(default_factory=list)
    model_args: dict[str, Option] = field(default_factory=dict)
    num_classes: int = 1000
    img_size: int | tuple[int, int] | None = None
    pretrained: bool = False
    seed: int = 0
    out: str = "explained"
    method: Literal["auto", "attention", "gradcam"] = "auto"
    layers: list[str] = field(default_factory=list)
    query: tuple[int, int] | None = None
    max_images: int | None = None
    overlays: bool = False
    device: str = "auto"

    def check(self) -> None:
        """Raise a `ValueError` that names the first setting that is out of its range."""
        if not self.images:
            raise ValueError("images: none given; name some, as in `foveate explain photo.jpg --checkpoint runs/mine`")
        if not self.checkpoint and not self.model:
            raise ValueError("checkpoint: no network given; name one with --checkpoint, or by --model")
        _checks.one_of("method", self.method, METHODS)
        _checks.integer("num_classes", self.num_classes)
        _checks.integer("seed", self.seed, minimum=0)
        if self.img_size is not None:
            _checks.pair("img_size", self.img_size)
        if self.query is not None:
            _checks.pair("query", self.query, minimum=0)
        if self.max_images is not None:
            _checks.integer("max_images", self.max_images)


def run(config: ExplainConfig) -> dict[str, Any]:
    """Explain the images, write pictures and numbers to ``config.out``, and return the numbers.

    Of each image and network ``IMAGE--NETWORK.png``, of several images or networks besides ``sheet-….png`` with all of
    them, and ``explanation.json``. An orientation tag is applied first: the networks see the image as people do.

    Raises:
        ValueError: A setting is wrong, a network cannot be loaded, no image can be read, or a file of somebody else's
            would be written over.
    """
    config.check()
    device = check_device(config.device, "32-true")
    given = find_images(config.images, config.max_images)
    networks = load_networks(
        config.checkpoint,
        config.model,
        model_args=config.model_args,
        num_classes=config.num_classes,
        img_size=config.img_size,
        pretrained=config.pretrained,
        seed=config.seed,
        device=device,
    )
    for network in networks:
        network.check(config.method, config.layers)
    if config.query is not None:
        _check_query(config.query, given, networks)
    out = writable_folder(Path(config.out))
    _check_out(out, given, networks)

    bad: list[BadImage] = []
    page: list[Comparison] = []
    entries: list[dict[str, Any]] = []
    sheets: list[str] = []
    unlike = 0
    for number, image in enumerate(given, start=1):
        try:
            pixels = read_upright(image.path)
            _check_shape(image, pixels, networks)
        except UnreadableImageError as error:
            bad.append(error.bad)
            print(f"{number}/{len(given)}  cannot read {error.bad}")
            continue
        row = [_explain(config, image, pixels, network, device) for network in networks]
        entries.append(_write(out, image, row, config))
        said = "; ".join(
            f"{finding.network.label}: {finding.verdict()}" + f" ({finding.warning})" * bool(finding.unlike)
            for finding in row
        )
        unlike += any(finding.unlike for finding in row)
        print(f"{number}/{len(given)}  {image.path}  {said}")
        page.append(comparison(row))
        if len(page) == ROWS:
            sheets.append(_write_sheet(out, page, networks, len(sheets) + 1))
            page = []
    if not entries:
        raise ValueError(f"images: none of the {len(given)} could be read:\n  " + "\n  ".join(map(str, bad)))
    if page and (len(entries) > 1 or len(networks) > 1):
        sheets.append(_write_sheet(out, page, networks, len(sheets) + 1))
    numbers = {
        "written_by": OURS,
        "environment": environment(device),
        "settings": dataclasses.asdict(config),
        "networks": [network_numbers(network) for network in networks],
        "images": entries,
        "sheets": sheets,
        "bad_images": [dataclasses.asdict(image) for image in bad],
    }
    write_json(out / NUMBERS, numbers)
    unread = f"; {len(bad)} could not be read" if bad else ""
    unread += f"; {unlike} looked unlike what a network was trained on" if unlike else ""
    print(f"{len(entries)} image{'s' * (len(entries) > 1)} explained{unread}; pictures and {NUMBERS} are in {out}")
    return numbers


def _check_shape(given: GivenImage, pixels: Image.Image, networks: Sequence[ExplainedNetwork]) -> None:
    """Refuse an image so long that its shorter side cannot be resized; one of 1×50,000 pixels would take gigabytes."""
    for network in networks:
        place = placement(network.transform, (pixels.height, pixels.width))
        if pixels.width * place.scale_x * pixels.height * place.scale_y > MAX_RESIZED:
            reason = f"{pixels.width}×{pixels.height} pixels are too long and narrow for {network.label}; crop it"
            raise UnreadableImageError(BadImage(str(given.path), reason))


def _explain(
    config: ExplainConfig, given: GivenImage, pixels: Image.Image, network: ExplainedNetwork, device: torch.device
) -> Finding:
    """Show one image to one network."""
    transform = network.transform
    place = placement(transform, (pixels.height, pixels.width))
    tensor = make_transform(transform, training=False)(pixels)[None].to(device)
    query = None if config.query is None else _input_pixel(config.query, place)
    explanation, records = network.explain(tensor, method=config.method, layers=config.layers, query=query)
    label = given.folder if given.folder in network.meta.classes else None
    unlike = network.meta.unlike(tensor)
    return Finding(given.path.name, pixels, label, network, explanation, records, place, unlike)


def _write(out: Path, given: GivenImage, row: Sequence[Finding], config: ExplainConfig) -> dict[str, Any]:
    """Write the pictures of one image; return its numbers and the names of the files."""
    found = []
    for finding in row:
        title = f"{given.path.name}, {finding.network.label}"
        sheet = _picture(given, finding.network)
        write_png(out / sheet, image_sheet(finding), title=title)
        numbers = {**finding_numbers(finding), "picture": sheet}
        if config.overlays:
            for record, layer in zip(finding.records, numbers["layers"], strict=True):
                layer["picture"] = f"{sheet.removesuffix('.png')}--{slugs([record.name])[0]}.png"
                write_png(out / layer["picture"], own_size(finding, record), title=f"{title}, {record.name}")
        found.append(numbers)
    pixels = row[0].image
    return {
        "file": str(given.path),
        "size": {"height": pixels.height, "width": pixels.width},
        "label": row[0].label,
        "networks": found,
    }


def _write_sheet(out: Path, page: Sequence[Comparison], networks: Sequence[ExplainedNetwork], number: int) -> str:
    name = _sheet(number)
    write_png(out / name, compare_sheet(page, networks), title=f"{len(page)} images, {len(networks)} networks")
    return name


def _picture(given: GivenImage, network: ExplainedNetwork) -> str:
    return f"{given.slug}--{network.slug}.png"


def _sheet(number: int) -> str:
    return f"sheet-{number}.png"


def _check_out(out: Path, given: Sequence[GivenImage], networks: Sequence[ExplainedNetwork]) -> None:
    """Refuse to write over files of somebody else's, before anything is computed."""
    for image in given:
        for network in networks:
            check_ours(out / _picture(image, network))
    for number in range(1, math.ceil(len(given) / ROWS) + 1):
        check_ours(out / _sheet(number))
    numbers = out / NUMBERS
    if numbers.exists():
        content = read_json(numbers)
        if not isinstance(content, dict) or content.get("written_by") != OURS:
            raise ValueError(f"out: {numbers} was not written by `foveate explain`; give another folder, or move it")


def _check_query(query: tuple[int, int], given: Sequence[GivenImage], networks: Sequence[ExplainedNetwork]) -> None:
    """Raise a `ValueError` unless all networks see the pixel ``query`` of every image."""
    for image in given:
        try:
            size = upright_size(image.path)
        except UnreadableImageError:
            continue  # it will be named when it is its turn
        for network in networks:
            place = placement(network.transform, size)
            if any(at >= side for at, side in zip(query, size, strict=True)):
                raise ValueError(f"query: {list(query)} lies outside of {image.path}, {size[0]}×{size[1]} pixels")
            if any(not 0 <= at < side for at, side in zip(_input_pixel(query, place), place.input_size, strict=True)):
                raise ValueError(
                    f"query: {list(query)} of {image.path} is cropped away before {network.label} sees the image"
                )


def _input_pixel(query: tuple[int, int], place: Placement) -> tuple[int, int]:
    """Return row and column of the input's pixel where the middle of a pixel of the image ends up."""
    x, y = place.to_input([query[1] + 0.5, query[0] + 0.5]).tolist()
    return math.floor(y), math.floor(x)
