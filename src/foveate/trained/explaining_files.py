"""Explaining files: pictures and numbers of what networks predict for them and where they look."""

from __future__ import annotations

import dataclasses
import glob
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from foveate import _checks
from foveate._paths import expanded
from foveate.data import BadImage, UnreadableImageError
from foveate.data.given import GivenImage, read_upright, slugs, upright_size
from foveate.data.written import check_ours, write_png
from foveate.explain.finding import Finding
from foveate.explain.numbers import finding_numbers
from foveate.explain.pictures import Comparison, compare_sheet, comparison, own_size
from foveate.io.environment import environment
from foveate.io.files import read_json, writable_folder, write_json
from foveate.trained.explaining import check_explainable, modules_shown, seen_place
from foveate.trained.network import TrainedNetwork

__all__ = ["NUMBERS", "FilesExplained", "How", "explain_files"]

NUMBERS = "explanation.json"
ROWS = 8
"""Images on a sheet that compares."""
OURS = "foveate explain"


@dataclass(frozen=True)
class How:
    """Options of an explanation; see `TrainedNetwork.explain`."""

    query: tuple[int, int] | None = None
    box: tuple[float, float, float, float] | None = None
    layers: Sequence[str] = ()
    method: str = "auto"
    overlays: bool = False
    """Write every layer's picture also at the image's own size."""


@dataclass(frozen=True)
class FilesExplained:
    """Result of `explain_files`: the content of ``explanation.json``, and the number of unfamiliar images."""

    numbers: dict[str, Any]
    unlike: int


def explain_files(
    given: Sequence[GivenImage],
    networks: Sequence[TrainedNetwork],
    out: str | Path,
    how: How | None = None,
    *,
    settings: dict[str, Any] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> FilesExplained:
    """Explain images by networks; write pictures and numbers to ``out``.

    Of each image and network ``IMAGE--NETWORK.png``, of several images or networks besides ``sheet-….png`` with all of
    them, and ``explanation.json``. An orientation tag is applied first: the networks see the image as people do.

    Args:
        given: Image files, see `foveate.data.given.find_images`.
        networks: Called by different names, see `foveate.trained.told_apart`.
        out: Folder to write to.
        how: See `How`.
        settings: Kept with the numbers.
        say: Called with a line for each image.

    Raises:
        ValueError: A network cannot be explained in this way, no image can be read, or a file of somebody else's would
            be written over.
    """
    how = how or How()
    layers = _layers_of(networks, how)
    for network in networks:
        check_explainable(network, how.method, layers[network.name])
    _check_place(how, given, networks)
    out = writable_folder(expanded(out))
    slug_of = slugs(network.meta.model for network in networks)
    _check_out(out, given, slug_of, overlays=how.overlays)

    bad: list[BadImage] = []
    page: list[Comparison] = []
    entries: list[dict[str, Any]] = []
    sheets: list[str] = []
    unlike = 0
    for number, image in enumerate(given, start=1):
        try:
            pixels = {
                range_: read_upright(image.path, intensity_range=range_)
                for range_ in {_range_of(network) for network in networks}
            }
            size = next((one.height, one.width) for one in pixels.values())
            for network in networks:
                network.check_shape(size, str(image.path))
        except UnreadableImageError as error:
            bad.append(error.bad)
            say(f"{number}/{len(given)}  cannot read {error.bad}")
            continue
        row = [_explain(how, image, pixels[_range_of(network)], network, layers[network.name]) for network in networks]
        entries.append(_write(out, image, dict(zip(slug_of, row, strict=True)), how))
        verdicts = "; ".join(
            f"{finding.network}: {finding.verdict()}" + f" ({finding.warning})" * bool(finding.unlike)
            for finding in row
        )
        unlike += any(finding.unlike for finding in row)
        say(f"{number}/{len(given)}  {image.path}  {verdicts}")
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
        "environment": environment(networks[0].device),
        "settings": settings or dataclasses.asdict(how),
        "networks": [{"label": one.name, "weights": one.source, **dataclasses.asdict(one.meta)} for one in networks],
        "images": entries,
        "sheets": sheets,
        "bad_images": [dataclasses.asdict(image) for image in bad],
    }
    write_json(out / NUMBERS, numbers)
    return FilesExplained(numbers, unlike)


def _range_of(network: TrainedNetwork) -> tuple[float, ...] | None:
    return None if network.meta.intensity_range is None else tuple(network.meta.intensity_range)


def _layers_of(networks: Sequence[TrainedNetwork], how: How) -> dict[str, Sequence[str]]:
    """Return which of the layers asked for each network shows; each must be one of at least one of them."""
    if not how.layers or list(how.layers) == ["all"]:
        return {network.name: how.layers for network in networks}
    own = {network.name: modules_shown(network, how.method) for network in networks}
    known = [name for names in own.values() for name in names]
    for layer in how.layers:
        if layer not in known:
            near = _checks.suggestion(layer, known) or f"; there are {', '.join(dict.fromkeys(known[:20])) or 'none'}"
            raise ValueError(f"layers: there is no layer {layer!r} in {' or '.join(own)}{near}")
    # Of a network that has others, all are named as missing; of one that has none, what it predicts is shown.
    return {
        name: [one for one in how.layers if one in names] or how.layers[: len(names)] for name, names in own.items()
    }


def _explain(
    how: How, given: GivenImage, pixels: Image.Image, network: TrainedNetwork, layers: Sequence[str]
) -> Finding:
    """Show one image to one network."""
    finding = network.explain(
        pixels,
        query=how.query,
        box=how.box,
        names=layers,
        method=how.method,
        label=given.folder if network.names_images and given.folder in network.classes else None,
    )
    return dataclasses.replace(finding, name=given.path.name)


def _write(out: Path, given: GivenImage, row: dict[str, Finding], how: How) -> dict[str, Any]:
    """Write the pictures of what each network, by its slug, made of an image; return the numbers and names of files."""
    found = []
    for slug, finding in row.items():
        sheet = _picture(given, slug)
        finding.save(out / sheet)
        numbers = {**finding_numbers(finding), "picture": sheet}
        if how.overlays:
            names = slugs(record.name for record in finding.records)
            for record, layer, name in zip(finding.records, numbers["layers"], names, strict=True):
                layer["picture"] = f"{sheet.removesuffix('.png')}--{name}.png"
                title = f"{finding.name}, {finding.network}, {record.name}"
                write_png(out / layer["picture"], own_size(finding, record), title=title)
        found.append(numbers)
    first = next(iter(row.values()))
    return {
        "file": str(given.path),
        "size": {"height": first.image.height, "width": first.image.width},
        "label": next((finding.label for finding in row.values() if finding.label is not None), None),
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


def _check_out(out: Path, given: Sequence[GivenImage], networks: Sequence[str], *, overlays: bool) -> None:
    """Raise a `ValueError`, before anything is computed, if files of other programs would be overwritten."""
    for image in given:
        for network in networks:
            check_ours(out / _picture(image, network))
            sheet = _picture(image, network).removesuffix(".png")
            for layer in out.glob(f"{glob.escape(sheet)}--*.png") if overlays else ():
                check_ours(layer)
    for number in range(1, math.ceil(len(given) / ROWS) + 1):
        check_ours(out / _sheet(number))
    numbers = out / NUMBERS
    if numbers.exists():
        content = read_json(numbers)
        if not isinstance(content, dict) or content.get("written_by") != OURS:
            raise ValueError(f"out: {numbers} was not written by `foveate explain`; give another folder, or move it")


def _check_place(how: How, given: Sequence[GivenImage], networks: Sequence[TrainedNetwork]) -> None:
    """Raise a `ValueError` unless all networks see the pixel or the box that is asked for in every image."""
    if how.query is None and how.box is None:
        return
    for image in given:
        try:
            size = upright_size(image.path)
        except UnreadableImageError:
            continue  # it will be named when it is its turn
        for network in networks:
            seen_place(network, how.query, how.box, size, name=str(image.path))
