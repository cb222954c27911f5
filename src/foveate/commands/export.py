"""``foveate export``: a trained network in a form that others can use."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

from torch import nn

from foveate import _checks
from foveate._version import __version__
from foveate.commands.export_card import origin
from foveate.export import (
    HubEntry,
    Normalized,
    check_deviation,
    check_hub_folder,
    export_program,
    onnx_model,
    program_file,
    push_to_hub,
    require_onnx,
    run_onnx,
    run_program,
    save_for_hub,
    shapes_to_check,
    smallest_side,
)
from foveate.io import NetworkMeta, load_network
from foveate.io.card import card_of
from foveate.io.checkpoint import WEIGHTS, save_with_card
from foveate.io.files import writable_folder, write_bytes

__all__ = ["ExportConfig", "run"]

Form = Literal["weights", "torch", "onnx", "hub"]
Dynamic = Literal["dynamic"]

GRAPHS, FILES = ("torch", "onnx"), ("weights", "hub")
OPTIONS_OF = {
    **dict.fromkeys(("batch", "size", "normalise"), GRAPHS),
    **dict.fromkeys(("half", "license"), FILES),
    "name": ("weights", *GRAPHS),
    "push": ("hub",),
}
"""The forms that an option has a meaning for, where that is not all."""


@dataclass(kw_only=True)
class ExportConfig:
    """Write a trained network in a form that others can use.

    Attributes:
        checkpoint: A model.safetensors, a .ckpt, or the folder of a run.
        to: weights (safetensors and a model card), torch (a .pt2 for torch.export.load), onnx, or hub (a folder that
            timm loads as local-dir:FOLDER, or from a Hugging Face hub).
        out: Folder to write to.
        name: Of the files, without an ending. Not given: that of the network. (All but hub.)
        batch: Images at a time, dynamic for any number. (torch, onnx.)
        size: Height and width of the images, dynamic for any; one number, or [height, width]. (torch, onnx.)
        normalise: Let the graph take images in [0, 1] and normalise them itself. Otherwise it takes images of which
            the mean was subtracted, and which were divided by the standard deviation, of each channel. (torch, onnx.)
        half: Store the parameters as float16, in half the space; they are loaded as float32. (weights, hub.)
        license: Under which the weights may be used, for the model card, as in apache-2.0. (weights, hub.)
        push: owner/name on the Hugging Face hub, to upload the network to; needs a token that may. (hub.)
    """

    checkpoint: str = ""
    to: Form = "weights"
    out: str = "exported"
    name: str | None = None
    batch: int | Dynamic = "dynamic"
    size: int | tuple[int, int] | Dynamic = "dynamic"
    normalise: bool = False
    half: bool = False
    license: str | None = None
    push: str | None = None

    def check(self) -> None:
        """Raise a `ValueError` that names the first setting that is out of its range."""
        if not self.checkpoint:
            raise ValueError("no checkpoint given; name one, as in `foveate export runs/gsa_resnet26-seed-0`")
        _checks.one_of("to", self.to, get_args(Form))
        for option, forms in OPTIONS_OF.items():
            default = getattr(type(self), option)
            if getattr(self, option) != default and self.to not in forms:
                raise ValueError(f"{option} means nothing to {self.to}, only to {' and '.join(forms)}; leave it out")
        if self.name is not None and (Path(self.name).name != self.name or self.name.startswith(".")):
            raise ValueError(f"name must be that of a file, without its folder; got {self.name!r}; give that as `out`")
        if self.batch != "dynamic":
            _checks.integer("batch", self.batch)
        if self.size != "dynamic":
            _checks.pair("size", self.size)


def run(config: ExportConfig) -> list[Path]:
    """Write the network in ``config.checkpoint``; return the files.

    A graph or a folder for a hub is compared with the network first, and is not written if it computes anything else.

    Raises:
        ValueError: A setting is wrong, there is no such checkpoint, or the network cannot be put in that form.
        OSError: A file cannot be written.
        MissingExtraError: The form is onnx, and the extra ``export`` is not installed.
    """
    config.check()
    if config.to == "onnx":
        require_onnx()
    model, meta = load_network(config.checkpoint)
    about = origin(Path(config.checkpoint)) | ({"license": config.license} if config.license else {})
    out = writable_folder(Path(config.out))
    if config.to == "weights":
        files = _write_weights(config, out / f"{config.name or meta.model}.safetensors", model, meta, about)
    elif config.to == "hub":
        files = _write_hub_folder(config, out, model, meta, about)
    else:
        files = [_write_graph(config, out, model, meta)]
    for file in files:
        print(f"{file}  {file.stat().st_size / 1e6:.3f} MB")
    if config.push is not None:
        push_to_hub(load_network(out)[0], config.push, _hub_entry(meta, about), page=_hub_page(about))
        print(f"uploaded to {config.push}")
    return files


def _write_weights(
    config: ExportConfig, path: Path, model: nn.Module, meta: NetworkMeta, about: dict[str, Any]
) -> list[Path]:
    save_with_card(path, model, meta, half=config.half, **about)
    return [path, card_of(path)]


def _write_hub_folder(
    config: ExportConfig, out: Path, model: nn.Module, meta: NetworkMeta, about: dict[str, Any]
) -> list[Path]:
    with TemporaryDirectory(dir=out, prefix=".") as folder:
        built = Path(folder)
        save_for_hub(model, built, _hub_entry(meta, about))
        _write_weights(config, built / WEIGHTS, model, meta, about)  # the same weights, and what says that they are
        check_hub_folder(load_network(built)[0], built, _image(meta))
        return [file.replace(out / file.name) for file in sorted(built.iterdir(), reverse=True)]


def _write_graph(config: ExportConfig, out: Path, model: nn.Module, meta: NetworkMeta) -> Path:
    """Export, compare at sizes that were not exported with, and only then write."""
    if config.normalise:
        model = Normalized(model, meta.mean, meta.std).eval()
    batch = None if config.batch == "dynamic" else config.batch
    any_size = config.size == "dynamic"
    image = _image(meta) if any_size else (_image(meta)[0], *_checks.pair("size", config.size))
    program = export_program(model, image, batch=batch, any_size=any_size)
    smallest = smallest_side(program, image[0], batch) if any_size else None
    about = {
        "network": dataclasses.asdict(meta),
        "input": "RGB images (B, C, H, W) in [0, 1]" + ("" if config.normalise else ", less mean, divided by std"),
        "smallest_side": smallest,
        "foveate": __version__,
    }
    make, runner, suffix = (onnx_model, run_onnx, "onnx") if config.to == "onnx" else (program_file, run_program, "pt2")
    content = make(program, about)
    found = check_deviation(model, runner(content), shapes_to_check(image, batch=batch, smallest=smallest))
    path = out / f"{config.name or meta.model}.{suffix}"
    write_bytes(path, content)
    worst = max(found, key=lambda deviation: deviation.error)
    sizes = f"sides of {smallest} and more" if any_size else f"images of {image[1]}×{image[2]}"
    print(f"{len(found)} shapes compared, {sizes}: relative error at most {worst.error:.1e}")
    return path


def _image(meta: NetworkMeta) -> tuple[int, int, int]:
    height, width = meta.img_size
    return meta.kwargs.get("in_chans", len(meta.mean)), height, width


def _hub_entry(meta: NetworkMeta, about: Mapping[str, Any]) -> HubEntry:
    preparation = {name: getattr(meta, name) for name in ("mean", "std", "crop_pct", "interpolation")}
    preparation["input_size"] = _image(meta)
    return HubEntry(classes=meta.classes, preparation=preparation, license=about.get("license"))


def _hub_page(about: Mapping[str, Any]) -> dict[str, Any]:
    details = {"Trained on": about["data"], "Recipe": about["recipe"], "Result": about["test"]}
    usage = "The network is one of `foveate`: `import foveate` before `timm.create_model`."
    license = {"license": about["license"]} if about.get("license") else {"license": "unknown"}
    return {"details": {name: dict(facts) for name, facts in details.items() if facts}, "usage": usage, **license}
