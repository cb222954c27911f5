"""Parameters and FLOPs of a network, as a whole and module by module.

Convention: **1 multiply-add = 2 FLOPs**, as `torch.utils.flop_counter` counts. It counts convolutions, matrix
products and attention; element-wise operations, normalization, pooling, softmax and FFT count as nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from foveate import _checks
from foveate.models.dense import Detector
from foveate.models.inspection import RefusedError, attention_modules, dry_run, private_copy

__all__ = ["ModuleCost", "NetworkCost", "StageCost", "network_cost", "step_flops"]


@dataclass(frozen=True)
class ModuleCost:
    """Cost of one module for one image, including all that it contains."""

    name: str
    """Name in the network, ``""`` for the network itself."""
    kind: str
    """Name of the class."""
    parameters: int
    """Parameters, including those of children; a shared one counts once."""
    flops: int
    """FLOPs for one image of all its calls; attention from `foveate.insert` counts in the module that calls it too."""
    output_shape: tuple[int, ...] | None
    """Shape of its last output, without the batch; None if it was not called or returned no tensor."""

    @property
    def depth(self) -> int:
        """Depth in the network: 0 for the network itself, 1 for ``layer1``, 2 for ``layer1.0``."""
        return self.name.count(".") + 1 if self.name else 0


@dataclass(frozen=True)
class StageCost:
    """Cost of the attention modules in one stage of a network.

    Of an augmented convolution only the attention counts, not the 3×3 convolution ``conv`` beside it.
    """

    stage: str
    """Name of the stage: the module that the network's ``feature_info`` names, else the top-level module."""
    kinds: tuple[str, ...]
    """Classes of the attention modules, each once."""
    modules: int
    """Number of attention modules."""
    parameters: int
    flops: int


@dataclass(frozen=True)
class NetworkCost:
    """Cost of a network for one image of ``input_size``, 1 multiply-add = 2 FLOPs."""

    input_size: tuple[int, int, int]
    parameters: int
    """All parameters, those of normalization layers included; a shared one counted once."""
    flops: int
    modules: tuple[ModuleCost, ...]
    """Every module in the order of ``named_modules()``; the first is the network itself."""
    attention: tuple[StageCost, ...]
    """The attention modules, stage by stage; empty for a network without."""


def network_cost(model: nn.Module, input_size: tuple[int, int, int] = (3, 224, 224)) -> NetworkCost:
    """Count the parameters and FLOPs of ``model`` in inference on one image of ``(channels, height, width)``.

    The count runs on a copy on the ``meta`` device: it allocates no activations and computes nothing, and ``model``
    itself is not touched. ``model`` is any network that takes one ``(B, C, H, W)`` batch. Detectors alone, whose work
    depends on what they find, compute on the CPU: as many regions as an untrained one proposes in a black image, 1,000
    at most.
    """
    if not isinstance(input_size, tuple | list) or len(input_size) != 3:
        raise ValueError(f"input_size must be (channels, height, width); got {input_size!r}")
    channels, height, width = (_checks.integer("input_size", size) for size in input_size)
    model = private_copy(model)  # without what wraps or compiles it and its parts
    if detects := any(isinstance(module, Detector) for module in model.modules()):
        model = model.float()  # overlaps of boxes are not compared in half precision
    rows = dry_run(model, (channels, height, width), _measure, values=detects)
    whole = rows[0]
    return NetworkCost((channels, height, width), whole.parameters, whole.flops, tuple(rows), _by_stage(model, rows))


def step_flops(model: nn.Module, input_size: tuple[int, int, int], *, input_gradient: bool) -> int:
    """Count the FLOPs of a forward and backward pass of ``model`` on one image, as `network_cost` counts.

    ``input_gradient`` includes the gradient of the image, as in the middle of a network.
    """

    def count(twin: nn.Module, image: Tensor) -> int:
        with torch.enable_grad(), FlopCounterMode(display=False) as counter:
            result = twin(image.requires_grad_(input_gradient)).sum()
            if not result.requires_grad:
                raise RefusedError(
                    f"all of {type(twin).__name__} is frozen, and no gradient of the image is asked for: there is no "
                    "backward pass; count it in inference (network_cost), or with input_gradient=True"
                )
            result.backward()
        return counter.get_total_flops()

    return dry_run(model, input_size, count)


def _measure(model: nn.Module, image: Tensor) -> list[ModuleCost]:
    """Run ``model`` once on ``image`` and return the cost of each module; its hooks stay on ``model``."""
    counter = FlopCounterMode(display=False)
    flops: dict[nn.Module, int] = {}
    shapes: dict[nn.Module, tuple[int, ...]] = {}
    entered: list[int] = []

    def enter(module: nn.Module, _: Any) -> None:
        entered.append(counter.get_total_flops())

    def leave(module: nn.Module, _: Any, output: Any) -> None:
        flops[module] = flops.get(module, 0) + counter.get_total_flops() - entered.pop()
        if isinstance(output, Tensor):
            shapes[module] = tuple(output.shape[1:])

    for module in model.modules():
        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)
    with counter:
        model(image)

    def flops_of(module: nn.Module) -> int:
        if module in flops:
            return flops[module]
        return sum(map(flops_of, module.children()))  # a list of modules is not called itself

    return [
        ModuleCost(
            name=name,
            kind=type(module).__name__,
            parameters=sum(parameter.numel() for parameter in module.parameters()),
            flops=flops_of(module),
            output_shape=shapes.get(module),
        )
        for name, module in model.named_modules()
    ]


def _by_stage(model: nn.Module, rows: list[ModuleCost]) -> tuple[StageCost, ...]:
    """Add up the rows of the attention modules in each stage of ``model``."""
    by_name = {row.name: row for row in rows}
    stages: dict[str, list[str]] = {}
    modules = attention_modules(model)
    for name in modules:
        stages.setdefault(_stage(model, name), []).append(name)
    costs = []
    for stage, names in stages.items():
        members = [by_name[name] for name in names]
        beside = [by_name[f"{name}.{modules[name].convolution}"] for name in names if modules[name].convolution]
        costs.append(
            StageCost(
                stage=stage,
                kinds=tuple(dict.fromkeys(row.kind for row in members)),
                modules=len(members),
                parameters=sum(row.parameters for row in members) - sum(row.parameters for row in beside),
                flops=sum(row.flops for row in members) - sum(row.flops for row in beside),
            )
        )
    return tuple(costs)


def _stage(model: nn.Module, name: str) -> str:
    """Return the innermost stage around module ``name``."""
    stages = [str(feature["module"]) for feature in getattr(model, "feature_info", None) or []]
    around = [stage for stage in stages if f"{name}.".startswith(f"{stage}.")]
    return max(around, key=len, default=name.partition(".")[0])
