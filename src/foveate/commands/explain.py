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
from foveate._devices import check_device
from foveate.commands._option import Option
from foveate.commands.protocol import environment
from foveate.data import BadImage, UnreadableImageError
from foveate.data.given import GivenImage, find_images, read_upright, slugs, upright_size
from foveate.explain.explanation import METHODS
from foveate.explain.finding import Finding
from foveate.explain.numbers import finding_numbers
from foveate.explain.pictures import Comparison, check_ours, compare_sheet, comparison, own_size, write_png
from foveate.io.files import read_json, writable_folder, write_json
from foveate.trained import TrainedNetwork, build, load, told_apart
from foveate.trained.explaining import check_explainable, seen_pixel

__all__ = ["NUMBERS", "ExplainConfig", "run"]

NUMBERS = "explanation.json"
ROWS = 8
"""Images on a sheet that compares."""
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
    device = check_device(config.device)
    given = find_images(config.images, config.max_images)
    networks = _networks(config, device)
    for network in networks:
        check_explainable(network, config.method, config.layers)
    if config.query is not None:
        _check_query(config.query, given, networks)
    out = writable_folder(Path(config.out))
    slug_of = slugs(network.meta.model for network in networks)
    _check_out(out, given, slug_of)

    bad: list[BadImage] = []
    page: list[Comparison] = []
    entries: list[dict[str, Any]] = []
    sheets: list[str] = []
    unlike = 0
    for number, image in enumerate(given, start=1):
        try:
            pixels = read_upright(image.path)
            for network in networks:
                network.check_shape((pixels.height, pixels.width), str(image.path))
        except UnreadableImageError as error:
            bad.append(error.bad)
            print(f"{number}/{len(given)}  cannot read {error.bad}")
            continue
        row = [_explain(config, image, pixels, network) for network in networks]
        entries.append(_write(out, image, dict(zip(slug_of, row, strict=True)), config))
        said = "; ".join(
            f"{finding.network}: {finding.verdict()}" + f" ({finding.warning})" * bool(finding.unlike)
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
        "networks": [{"label": one.name, "weights": one.source, **dataclasses.asdict(one.meta)} for one in networks],
        "images": entries,
        "sheets": sheets,
        "bad_images": [dataclasses.asdict(image) for image in bad],
    }
    write_json(out / NUMBERS, numbers)
    unread = f"; {len(bad)} could not be read" if bad else ""
    unread += f"; {unlike} looked unlike what a network was trained on" if unlike else ""
    print(f"{len(entries)} image{'s' * (len(entries) > 1)} explained{unread}; pictures and {NUMBERS} are in {out}")
    return numbers


def _networks(config: ExplainConfig, device: torch.device) -> list[TrainedNetwork]:
    """Load the checkpoints and build the models."""
    loaded = [load(checkpoint, device=device) for checkpoint in config.checkpoint]
    options: dict[str, Any] = {
        name: getattr(config, name) for name in ("pretrained", "seed", "num_classes", "img_size", "model_args")
    }
    return told_apart([*loaded, *(build(name, device=device, **options) for name in config.model)])


def _explain(config: ExplainConfig, given: GivenImage, pixels: Image.Image, network: TrainedNetwork) -> Finding:
    """Show one image to one network."""
    finding = network.explain(
        pixels,
        query=config.query,
        names=config.layers,
        method=config.method,
        label=given.folder if given.folder in network.classes else None,
    )
    return dataclasses.replace(finding, name=given.path.name)


def _write(out: Path, given: GivenImage, row: dict[str, Finding], config: ExplainConfig) -> dict[str, Any]:
    """Write the pictures of what each network, by its slug, made of an image; return the numbers and names of files."""
    found = []
    for slug, finding in row.items():
        sheet = _picture(given, slug)
        finding.save(out / sheet)
        numbers = {**finding_numbers(finding), "picture": sheet}
        if config.overlays:
            for record, layer in zip(finding.records, numbers["layers"], strict=True):
                layer["picture"] = f"{sheet.removesuffix('.png')}--{slugs([record.name])[0]}.png"
                title = f"{finding.name}, {finding.network}, {record.name}"
                write_png(out / layer["picture"], own_size(finding, record), title=title)
        found.append(numbers)
    first = next(iter(row.values()))
    return {
        "file": str(given.path),
        "size": {"height": first.image.height, "width": first.image.width},
        "label": first.label,
        "networks": found,
    }


def _write_sheet(out: Path, page: Sequence[Comparison], networks: Sequence[TrainedNetwork], number: int) -> str:
    name = _sheet(number)
    sheet = compare_sheet(page, [network.name for network in networks])
    write_png(out / name, sheet, title=f"{len(page)} images, {len(networks)} networks")
    return name


def _picture(given: GivenImage, network: str) -> str:
    return f"{given.slug}--{network}.png"


def _sheet(number: int) -> str:
    return f"sheet-{number}.png"


def _check_out(out: Path, given: Sequence[GivenImage], networks: Sequence[str]) -> None:
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


def _check_query(query: tuple[int, int], given: Sequence[GivenImage], networks: Sequence[TrainedNetwork]) -> None:
    """Raise a `ValueError` unless all networks see the pixel ``query`` of every image."""
    for image in given:
        try:
            size = upright_size(image.path)
        except UnreadableImageError:
            continue  # it will be named when it is its turn
        for network in networks:
            seen_pixel(network, query, size, name=str(image.path))
