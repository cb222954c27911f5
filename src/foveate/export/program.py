"""A network as a graph of PyTorch's own operators, for any number of images of any size."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from foveate._checks import integer
from foveate.models.inspection import FAILURES

__all__ = ["ABOUT", "Normalized", "export_program", "program_file", "run_program", "smallest_side"]

ABOUT = "foveate.json"
"""Name of the file in a ``.pt2`` that holds ``about``."""
BATCH, HEIGHT, WIDTH = 0, 2, 3


class Normalized(nn.Module):
    """Network that takes images in [0, 1] and normalizes them itself: ``model((x − mean) / std)``."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images ``(B, C, H, W)`` in [0, 1]."""
        return self.model((x - self.mean) / self.std)


def export_program(
    model: nn.Module, image: tuple[int, int, int], *, batch: int | None = None, any_size: bool = True
) -> ExportedProgram:
    """Trace ``model`` with `torch.export`: the graph needs no operator and no code of this library.

    ``model``, in evaluation mode on the CPU, was made for ``image``, ``(channels, height, width)``; ``any_size`` leaves
    height and width open. ``batch`` is fixed unless None. A `ValueError` says that the network depends on the size of
    its images in a way that fixes an open side.
    """
    channels, height, width = image
    dynamic: dict[int, Any] = {}
    if batch is None:
        dynamic[BATCH] = Dim.DYNAMIC
    if any_size:
        # Unequal sides and no map of a single pixel, so that the graph assumes neither.
        height, width = 2 * height, 3 * width
        dynamic |= {HEIGHT: Dim.DYNAMIC, WIDTH: Dim.DYNAMIC}
    example = torch.zeros(2 if batch is None else integer("batch", batch), channels, height, width)
    try:
        program = torch.export.export(model, (example,), dynamic_shapes=(dynamic,))
    except (ValueError, *FAILURES) as error:
        reason = str(error).strip().partition("\n")[0]
        remedy = "; give a fixed `size`, that of its training, or a fixed `batch`" if dynamic else ""
        raise ValueError(f"{type(model).__name__} cannot be exported ({reason}){remedy}") from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return program


LARGEST = 1024
"""Largest side of the images that `smallest_side` tries."""


def smallest_side(program: ExportedProgram, channels: int, batch: int | None = None) -> int:
    """Return the smallest height and width that a graph of `export_program` for any size takes.

    It was traced where every map has several pixels, and assumes that: guards of the graph refuse smaller images. ONNX
    has no such guards.

    Raises:
        ValueError: It takes no square image of up to `LARGEST` pixels a side.
    """
    module = program.module()
    for side in range(1, LARGEST + 1):
        with torch.no_grad(), contextlib.suppress(AssertionError, RuntimeError):
            module(torch.zeros(batch or 1, channels, side, side))
            return side
    raise ValueError(
        f"the graph for any size takes no square image of up to {LARGEST} pixels a side, by the guards that tracing "
        "left in it; give a fixed `size`, as that of its training"
    )


def program_file(program: ExportedProgram, about: Mapping[str, Any]) -> bytes:
    """Return the contents of a ``.pt2`` file, for `torch.export.load`, with ``about`` as JSON in it."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={ABOUT: json.dumps(about)})
    return buffer.getvalue()


def run_program(content: bytes) -> Callable[[Tensor], Tensor]:
    """Return the graph in a trusted ``.pt2`` file as a function of images."""
    module = torch.export.load(io.BytesIO(content)).module()
    return torch.no_grad()(module)
