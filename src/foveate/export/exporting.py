"""Export of a trained network in a form for others, compared with the network before it is written."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple, get_args

from torch import nn

from foveate import _checks
from foveate._paths import expanded
from foveate._version import __version__
from foveate.export.checking import check_deviation, shapes_to_check
from foveate.export.detection import check_detections, onnx_detector, run_onnx_detector
from foveate.export.hub import HubEntry, check_hub_folder, page_of, push_to_hub, save_for_hub
from foveate.export.onnx_model import onnx_model, require_onnx, run_onnx
from foveate.export.origin import origin
from foveate.export.program import Normalized, export_program, program_file, run_program, smallest_side
from foveate.io import NetworkMeta, load_network
from foveate.io.card import card_of
from foveate.io.checkpoint import WEIGHTS, save_with_card
from foveate.io.files import writable_folder, write_bytes

__all__ = ["DYNAMIC", "Dynamic", "Exported", "Form", "export_network"]

logger = logging.getLogger(__name__)

Form = Literal["weights", "torch", "onnx", "hub"]
Dynamic = Literal["dynamic"]
DYNAMIC: Dynamic = "dynamic"
GRAPHS, FILES = ("torch", "onnx"), ("weights", "hub")
OPTIONS_OF = {
    **dict.fromkeys(("batch", "size", "normalize"), GRAPHS),
    **dict.fromkeys(("half", "license"), FILES),
    "difference": ("weights",),
    "name": ("weights", *GRAPHS),
    "push": ("hub",),
}
"""Forms that an option applies to, where those are not all."""
DEFAULTS = {"batch": DYNAMIC, "size": DYNAMIC, "normalize": False, "half": False, "difference": False}


class Exported(NamedTuple):
    """Files of an export, and the result of comparing a graph with the network."""

    files: list[Path]
    checked: str


def export_network(
    checkpoint: str | Path,
    to: Form = "weights",
    *,
    out: str | Path = "exported",
    name: str | None = None,
    batch: int | Dynamic = DYNAMIC,
    size: int | tuple[int, int] | Dynamic = DYNAMIC,
    normalize: bool = False,
    half: bool = False,
    difference: bool = False,
    license: str | None = None,
    push: str | None = None,
) -> Exported:
    """Write a trained network in a form for others; the options are those of ``foveate export``.

    A graph or a folder for a hub is compared with the network first, and is not written if it computes anything else.

    Raises:
        ValueError: An option is wrong, there is no such checkpoint, or the network cannot be put in that form.
        OSError: A file cannot be written.
        MissingExtraError: The form is onnx, and the extra ``export`` is not installed; or the weights of a package are
            needed, and the extra ``photos`` is not.
    """
    options: dict[str, Any] = {"batch": batch, "size": size, "normalize": normalize, "half": half}
    options |= {"difference": difference, "license": license, "name": name, "push": push}
    check_options(to, options)
    if to == "onnx":
        require_onnx()
    model, meta = load_network(checkpoint)
    _check_task(to, meta)
    if meta.task == "detection" and batch not in (DYNAMIC, 1):
        raise ValueError(f"batch: the graph of a detector takes one image at a time; got {batch}; leave it out")
    about = origin(checkpoint) | ({"license": license} if license else {})
    folder, checked = writable_folder(expanded(out)), ""
    written = WEIGHTS if to == "hub" else f"{name or meta.model}.safetensors"
    if to in FILES and written == WEIGHTS and (folder / WEIGHTS).is_file():
        from foveate.training.run_folder import RESULT  # only here: all of training comes with it

        if (folder / RESULT).is_file():
            raise ValueError(f"out: {folder} is a run's folder, whose {WEIGHTS} would be replaced; give another one")
    if to == "weights":
        path = folder / f"{name or meta.model}.safetensors"
        files = _write_weights(path, model, meta, about, half=half, difference=difference)
    elif to == "hub":
        files = _write_hub_folder(folder, model, meta, about, half=half)
    else:
        path = folder / f"{name or meta.model}.{'onnx' if to == 'onnx' else 'pt2'}"
        files, checked = [path], _write_graph(path, model, meta, to, batch=batch, size=size, normalize=normalize)
    if push is not None:
        push_to_hub(files, push, page_of(meta.model, about))
    return Exported(files, checked)


def check_options(to: str, options: Mapping[str, Any]) -> None:
    """Raise a `ValueError` that names the first option that is out of its range or does not apply to the form."""
    _checks.one_of("to", to, get_args(Form))
    for option, forms in OPTIONS_OF.items():
        if options[option] != DEFAULTS.get(option) and to not in forms:
            raise ValueError(f"{option} means nothing to {to}, only to {' and '.join(forms)}; leave it out")
    name = options["name"]
    if name is not None and (Path(name).name != name or name.startswith(".")):
        raise ValueError(f"name must be that of a file, without its folder; got {name!r}; give that as `out`")
    if options["batch"] != DYNAMIC:
        _checks.integer("batch", options["batch"])
    if options["size"] != DYNAMIC:
        _checks.pair("size", options["size"])


def _check_task(to: Form, meta: NetworkMeta) -> None:
    """Raise a `ValueError` if a network of this task cannot be put in the form."""
    if to == "hub" and meta.head:
        raise ValueError(
            f"to: timm, which loads a hub's folder, knows no {meta.head}; export a network for {meta.task} to weights, "
            + ("torch or onnx" if meta.task == "segmentation" else "or onnx")
        )
    if to == "torch" and meta.task == "detection":
        raise ValueError(
            "to: a detector cannot be put in torch: how many boxes it has depends on the image, for which torch.export "
            "has no graphs of torchvision's detectors; export it to onnx, or weights"
        )


def _write_weights(
    path: Path, model: nn.Module, meta: NetworkMeta, about: dict[str, Any], *, half: bool, difference: bool = False
) -> list[Path]:
    save_with_card(path, model, meta, half=half, difference=difference, **about)
    return [path, card_of(path)]


def _write_hub_folder(
    out: Path, model: nn.Module, meta: NetworkMeta, about: dict[str, Any], *, half: bool
) -> list[Path]:
    with TemporaryDirectory(dir=out, prefix=".") as folder:
        built = Path(folder)
        save_for_hub(model, built, _hub_entry(meta, about))
        _write_weights(built / WEIGHTS, model, meta, about, half=half)  # the same weights, with their card
        check_hub_folder(load_network(built)[0], built, _image(meta))
        return [file.replace(out / file.name) for file in sorted(built.iterdir(), reverse=True)]


def _write_graph(
    path: Path,
    model: nn.Module,
    meta: NetworkMeta,
    to: Form,
    *,
    batch: int | Dynamic,
    size: int | tuple[int, int] | Dynamic,
    normalize: bool,
) -> str:
    """Export, compare at other sizes, and only then write; return the result of the comparison."""
    if normalize:
        model = Normalized(model, meta.mean, meta.std).eval()
    if meta.task == "detection":
        return _write_detector(path, model, meta, size=size, normalize=normalize)
    images = None if batch == DYNAMIC else batch
    any_size = size == DYNAMIC
    image = _image(meta) if any_size else (_image(meta)[0], *_checks.pair("size", size))
    program = export_program(model, image, batch=images, any_size=any_size)
    smallest = smallest_side(program, image[0], images) if any_size else None
    about = _about(meta, normalize=normalize) | {"smallest_side": smallest}
    make, runner = (onnx_model, run_onnx) if to == "onnx" else (program_file, run_program)
    content = make(program, about)
    found = check_deviation(model, runner(content), shapes_to_check(image, batch=images, smallest=smallest))
    write_bytes(path, content)
    worst = max(found, key=lambda deviation: deviation.error)
    sizes = f"sides of {smallest} and more" if any_size else f"images of {image[1]}×{image[2]}"
    return f"{len(found)} shapes compared, {sizes}: relative error at most {worst.error:.1e}"


def _write_detector(
    path: Path, model: nn.Module, meta: NetworkMeta, *, size: int | tuple[int, int] | Dynamic, normalize: bool
) -> str:
    """Do what `_write_graph` does for a detector, whose graph is of one image of one size."""
    image = _image(meta) if size == DYNAMIC else (_image(meta)[0], *_checks.pair("size", size))
    content = onnx_detector(model, image, _about(meta, normalize=normalize))
    compared = check_detections(model, run_onnx_detector(content), image)
    write_bytes(path, content)
    if not compared:
        logger.warning(
            "%s: the network finds no object in random images, so that nothing was compared; look at what it finds in "
            "photographs before you rely on it",
            path,
        )
    return f"one image of {image[1]}×{image[2]}: {compared} objects found in random images are the network's"


def _about(meta: NetworkMeta, *, normalize: bool) -> dict[str, Any]:
    """Return what is written into a graph about its network."""
    return {
        "network": dataclasses.asdict(meta),
        "input": "RGB images (B, C, H, W) in [0, 1]" + ("" if normalize else ", less mean, divided by std"),
        "foveate": __version__,
    }


def _image(meta: NetworkMeta) -> tuple[int, int, int]:
    height, width = meta.img_size
    return meta.kwargs.get("in_chans", len(meta.mean)), height, width


def _hub_entry(meta: NetworkMeta, about: Mapping[str, Any]) -> HubEntry:
    if meta.fit == "pad":
        raise ValueError("to: timm knows no images that are padded as here (fit='pad'); export weights, onnx or torch")
    preparation = {name: getattr(meta, name) for name in ("mean", "std", "crop_pct", "interpolation")}
    preparation |= {"input_size": _image(meta), "crop_mode": "squash" if meta.fit == "squash" else "center"}
    return HubEntry(classes=meta.classes, preparation=preparation, license=about.get("license"))
