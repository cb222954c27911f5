"""``foveate export``: a trained network in a form that others can use."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveate.export import Dynamic, Form, export_network

__all__ = ["ExportConfig", "run"]


@dataclass(kw_only=True)
class ExportConfig:
    """Write a trained network in a form that others can use.

    Attributes:
        checkpoint: A model.safetensors, a .ckpt, or the folder of a run.
        to: weights (safetensors and a model card), torch (a .pt2 for torch.export.load), onnx, or hub (a folder that
            timm loads as local-dir:FOLDER, or from a Hugging Face hub). Of segmentation networks all but hub, of
            detectors weights and onnx, for one image at a time and of one size, that of the training by default.
        out: Folder to write to.
        name: Of the files, without an ending. Not given: that of the network. (All but hub.)
        batch: Images at a time, dynamic for any number. (torch, onnx.)
        size: Height and width of the images, dynamic for any; one number, or [height, width]. (torch, onnx.)
        normalize: Let the graph take images in [0, 1] and normalize them itself. Otherwise it takes images of which
            the mean was subtracted, and which were divided by the standard deviation, of each channel. (torch, onnx.)
        half: Store the parameters as float16, in half the space; they are loaded as float32. (weights, hub.)
        difference: Leave out the weights that the network shares with those of ImageNet in the extra photos, from which
            they are taken again when it is loaded. For networks made from tf_efficientnet_lite0. (weights.)
        license: Under which the weights may be used, for the model card, as in apache-2.0. (weights, hub.)
        push: owner/name on the Hugging Face hub, to upload the network to; needs a token that may. (hub.)
    """

    checkpoint: str = ""
    to: Form = "weights"
    out: str = "exported"
    name: str | None = None
    batch: int | Dynamic = "dynamic"
    size: int | tuple[int, int] | Dynamic = "dynamic"
    normalize: bool = False
    half: bool = False
    difference: bool = False
    license: str | None = None
    push: str | None = None


def run(config: ExportConfig) -> list[Path]:
    """Write the network in ``config.checkpoint``, print and return the files; see `foveate.export.export_network`."""
    if not config.checkpoint:
        raise ValueError("no checkpoint given; name one, as in `foveate export runs/gsa_resnet26-seed-0`")
    options: dict[str, Any] = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    exported = export_network(**options)
    if exported.checked:
        print(exported.checked)
    for file in exported.files:
        print(f"{file}  {file.stat().st_size / 1e6:.3f} MB")
    if config.push is not None:
        print(f"uploaded to {config.push}")
    return exported.files
