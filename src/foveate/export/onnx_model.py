"""A network as an ONNX model, and running it with onnxruntime."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from foveate._extras import require

__all__ = ["INPUT", "METADATA_KEY", "OUTPUT", "onnx_model", "require_onnx", "run_onnx"]

INPUT, OUTPUT = "images", "logits"
AXES = {0: "batch", 2: "height", 3: "width"}
METADATA_KEY = "foveate"
"""Key of the model's metadata that holds ``about`` as JSON."""


def require_onnx() -> None:
    """Raise a `MissingExtraError` if the extra ``export`` is not installed, before the long work."""
    for module in ("onnx", "onnxscript", "onnxruntime"):
        require(module, extra="export")


def onnx_model(program: ExportedProgram, about: Mapping[str, Any]) -> bytes:
    """Translate a graph to ONNX, with operators of ONNX's own set alone, including weights and ``about``.

    The input is called ``images``, the output ``logits``, and the open sides ``batch``, ``height``, ``width``.

    Raises:
        ValueError: The graph has an operator that ONNX lacks, or the file would be above protobuf's 2 GB.
    """
    require_onnx()
    too_large = require("google.protobuf.message", extra="export").EncodeError
    try:
        translated = torch.onnx.export(
            program,
            (),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=(AXES,),
            dynamo=True,
            verbose=False,
        )
        assert translated is not None  # no file was asked for
        model = translated.model
        for node in model.graph.all_nodes():
            node.metadata_props.clear()  # they name source files of this machine
        model.metadata_props[METADATA_KEY] = json.dumps(about)
        return translated.model_proto.SerializeToString()
    except (torch.onnx.errors.OnnxExporterError, ValueError, too_large) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"the network cannot be put in ONNX: {reason}") from error


def run_onnx(content: bytes) -> Callable[[Tensor], Tensor]:
    """Return an ONNX model as a function of images on the CPU."""
    runtime = require("onnxruntime", extra="export")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run([OUTPUT], {INPUT: images.numpy()})
        return torch.from_numpy(logits)

    return run
