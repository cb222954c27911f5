"""Detectors as ONNX graphs of one image of one size.

They are traced: how many boxes there are depends on the image, for which `torch.export` has no graphs of torchvision's
detectors.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from foveate._extras import require
from foveate.export.onnx_model import INPUT, METADATA_KEY, require_onnx

__all__ = ["check_detections", "onnx_detector", "run_onnx_detector"]

OPSET = 17
CHECKED, SCORE_TOLERANCE, SAME_BOX, SAME_SHARE = 12, 1e-3, 0.99, 0.99
"""Images that are compared; largest difference of two scores; smallest IoU of two boxes that are the same; and how many
of the boxes have to be: where two overlap by just the limit, rounding decides which of them is kept."""

Found = Mapping[str, Tensor]


class _OneImage(nn.Module):
    """A detector whose outputs are tensors: those of the only image."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector
        self.names: list[str] = []

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        (found,) = self.detector(images)
        self.names = list(found)
        return tuple(found.values())


def onnx_detector(model: nn.Module, image: tuple[int, int, int], about: Mapping[str, Any]) -> bytes:
    """Trace a detector to ONNX, with operators of ONNX's own set alone, including weights and ``about``.

    The input is called ``images``, ``(1, channels, height, width)`` of the size of ``image``; the outputs are ``boxes``
    ``(objects, 4)``, ``labels``, ``scores`` and, of Mask R-CNN, ``masks``, as those of the detector.

    Raises:
        ValueError: The detector has an operator that ONNX lacks, or the file would be above protobuf's 2 GB.
    """
    require_onnx()
    onnx = require("onnx", extra="export")
    single = _OneImage(model).eval()
    example = torch.rand(1, *image, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), warnings.catch_warnings(), TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # of Python values in traces, and that another exporter is preferred
        single(example)
        axes = {name: {0: "objects"} for name in single.names}
        try:
            torch.onnx.export(
                single,
                (example,),
                file := Path(folder) / "detector.onnx",
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=single.names,
                dynamic_axes=axes,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"the detector cannot be put in ONNX: {reason}") from error
        proto = onnx.load(file)
    _forget_sources(proto.graph)
    onnx.helper.set_model_props(proto, {METADATA_KEY: json.dumps(about)})
    onnx.checker.check_model(proto)
    return proto.SerializeToString()


def _forget_sources(graph: Any) -> None:
    """Remove the source files of this machine, which nodes name, from a graph and those within it."""
    for node in graph.node:
        node.doc_string = ""
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _forget_sources(inner)


def run_onnx_detector(content: bytes) -> Callable[[Tensor], Found]:
    """Return an ONNX detector as a function of one image ``(1, C, H, W)`` on the CPU."""
    runtime = require("onnxruntime", extra="export")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # not the shapes that it finds out only when it runs
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: Tensor) -> Found:
        outputs = session.run(names, {INPUT: images.numpy()})
        return {name: torch.from_numpy(output) for name, output in zip(names, outputs, strict=True)}

    return run


def check_detections(model: nn.Module, other: Callable[[Tensor], Found], image: tuple[int, int, int]) -> int:
    """Compare a detector with ``other`` on random images; return how many boxes are the same.

    Raises:
        ValueError: They find other objects, or ``other`` does not take such images.
    """
    generator, ours, theirs, same = torch.Generator().manual_seed(0), 0, 0, 0
    for index in range(CHECKED):
        # In ever stronger contrast: a detector finds few objects in plain noise.
        images = 2.0 ** (index % 6) * torch.randn(1, *image, generator=generator)
        with torch.no_grad():
            (wanted,) = model(images)
        try:
            found = other(images)
        except Exception as error:  # onnxruntime has its own kinds
            reason = str(error).strip().partition("\n")[0]
            size = "×".join(map(str, image))
            raise ValueError(f"what was exported does not take images of {size}: {reason}") from error
        ours, theirs, same = ours + len(wanted["boxes"]), theirs + len(found["boxes"]), same + _same(wanted, found)
    if same < SAME_SHARE * max(ours, theirs):
        raise ValueError(
            f"what was exported finds {theirs} objects, the network {ours}; {same} are the same; nothing was written"
        )
    return same


def _same(one: Found, other: Found) -> int:
    """Return how many objects of ``one`` are among those of ``other``."""
    if not len(one["boxes"]) or not len(other["boxes"]):
        return 0
    alike = box_iou(one["boxes"], other["boxes"]) >= SAME_BOX
    alike &= (one["scores"][:, None] - other["scores"]).abs() <= SCORE_TOLERANCE
    alike &= one["labels"][:, None] == other["labels"]
    (own,), partners = alike.any(1).nonzero(as_tuple=True), alike.int().argmax(1)
    if "masks" in one:
        difference = (one["masks"][own] - other["masks"][partners[own]]).abs().flatten(1).mean(1)
        return int((difference <= SCORE_TOLERANCE).sum())
    return len(own)
