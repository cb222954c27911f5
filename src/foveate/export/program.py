"""A network as a graph of PyTorch's own operators, for any number of images of any size."""

from __future__ import annotations

import contextlib
import io
import itertools
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
"""Name under which a ``.pt2`` holds what goes with the network."""
BATCH, HEIGHT, WIDTH = 0, 2, 3


class Normalized(nn.Module):
    """A network that takes images in [0, 1] and normalizes them itself: ``model((x − mean) / std)``.

    Args:
        model: Takes normalized images.
        mean: Of each channel.
        std: Of each channel.
    """

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
    """Trace ``model`` with `torch.export`: no operator of this library is in the graph, and none of its code is needed.

    Args:
        model: In evaluation mode, on the CPU.
        image: ``(channels, height, width)`` that the model was made for.
        batch: Images at a time; None for any number.
        any_size: Leave height and width open; with False they are those of ``image``.

    Raises:
        ValueError: The network looks at the size of its images in a way that leaves one of the two fixed.
    """
    channels, height, width = image
    dynamic: dict[int, Any] = {}
    if batch is None:
        dynamic[BATCH] = Dim.DYNAMIC
    if any_size:
        # No two sides alike, and no map of a single pixel, for the graph not to take that for granted.
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
        node.meta.pop("stack_trace", None)  # where the source lies on this machine is nobody's business
    return program


def smallest_side(program: ExportedProgram, channels: int, batch: int | None = None) -> int:
    """Return the smallest height and width that a graph for any size takes.

    It was traced where every map has several pixels, and takes that for granted: what is below is refused by guards of
    the graph, which ONNX does not have.

    Args:
        program: Of `export_program`.
        channels: Of the images.
        batch: As in `export_program`.
    """
    module = program.module()
    for side in itertools.count(1):  # it was traced with a larger one, so this ends
        with torch.no_grad(), contextlib.suppress(AssertionError, RuntimeError):
            module(torch.zeros(batch or 1, channels, side, side))
            break
    return side


def program_file(program: ExportedProgram, about: Mapping[str, Any]) -> bytes:
    """Return the contents of a ``.pt2`` file, for `torch.export.load`, with ``about`` as JSON in it."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={ABOUT: json.dumps(about)})
    return buffer.getvalue()


def run_program(content: bytes) -> Callable[[Tensor], Tensor]:
    """Return what the graph in a ``.pt2`` file computes of images, as a function; for files of one's own only."""
    module = torch.export.load(io.BytesIO(content)).module()
    return torch.no_grad()(module)
