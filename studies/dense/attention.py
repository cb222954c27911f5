"""What trained segmentation networks and detectors owe to their attention, and what became of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveate.explain import AttentionRecord, attention_off, attention_records, parts_of
from foveate.io import load_network
from foveate.models.inspection import attention_modules
from foveate.training import TrainConfig, TrainingModule, check_device, predict
from foveate.training.build import configured_task, normalized

__all__ = ["attention_of", "has_weights"]

INSIDE = 0.5
"""Of a gate's maximum: what is above it counts as within."""


def has_weights(folder: Path) -> bool:
    """Tell whether the weights of a run are still there."""
    return (folder / "model.safetensors").is_file()


def attention_of(folder: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what can only be seen in the weights of a finished run; nothing of a network without attention.

    - ``without``: the score without each part of the attention;
    - ``radii``: of explicit attention, at the start and learned;
    - ``gates``: of CRAM and position-wise attention over all test images, the share of the picture that is within, the
      mean and the deviation of a rectangle's half-sides and center, and of a detector how many objects have their
      center within, as a share of all.
    """
    network, meta = load_network(folder)
    modules = attention_modules(network)
    if not modules:
        return {}
    config = TrainConfig(**result["config"])
    data = normalized(config.open(), meta)
    task = configured_task(config, data)
    _, val, test = data.loaders(batch_size=config.batch_size, seed=config.seed, samples=task.samples)
    images = val if test is None else test
    # The weights are averaged already; an average of its own would be a copy of the network.
    module = TrainingModule(network, dataclasses.replace(config, ema_decay=0.0), task)
    device = check_device("cpu", config.precision)
    without = {}
    for part in parts_of(network):
        with attention_off(network, part):
            found: Any = task.evaluate(*predict(module, images, device=device))
            without[part] = dataclasses.asdict(found)[task.metric]
    radii = {
        name: dict(zip(("start", "learned"), module.scalars()["radius"], strict=True))
        for name, module in modules.items()
        if "radius" in module.scalars()
    }
    gates = _gates(network, images)
    return {"without": without} | ({"radii": radii} if radii else {}) | ({"gates": gates} if gates else {})


def _gates(network: nn.Module, images: Any) -> dict[str, Any]:
    """Return, by the name of the module, what its gates are over ``images``, batches of images and targets."""
    found: dict[str, list[tuple[list[Tensor], int, int]]] = {}
    numbers: dict[str, list[Tensor]] = {}
    for batch, targets in images:
        for record in attention_records(network, batch):
            if record.weights is not None or record.radius is not None:
                continue
            within = _within(record, (batch.shape[2], batch.shape[3]))
            held = _objects_within(within, targets) if isinstance(targets, list) else (0, 0)
            found.setdefault(record.name, []).append((list(within.float().mean((1, 2))), *held))
            if record.numbers is not None:
                numbers.setdefault(record.name, []).append(record.numbers)
    return {name: _gate(rows, numbers.get(name)) for name, rows in found.items()}


def _gate(rows: list[tuple[list[Tensor], int, int]], numbers: list[Tensor] | None) -> dict[str, Any]:
    shares = torch.stack([share for row in rows for share in row[0]])
    gate: dict[str, Any] = {"share": float(shares.mean())}
    if objects := sum(row[2] for row in rows):
        gate |= {"objects": objects, "objects_within": sum(row[1] for row in rows) / objects}
    if numbers is not None:
        of_all = torch.cat(numbers)
        for index, name in enumerate(("cx", "cy", "sx", "sy")):
            gate[name] = {"mean": float(of_all[:, index].mean()), "deviation": float(of_all[:, index].std())}
    return gate


def _within(record: AttentionRecord, size: tuple[int, int]) -> Tensor:
    """Return which pixels of the images, of height and width ``size``, are within the gate, ``(B, H, W)``."""
    gate = F.interpolate(record.map[:, None], record.image_size, mode="bilinear")[:, 0, : size[0], : size[1]]
    return gate >= INSIDE * gate.amax((1, 2), keepdim=True)


def _objects_within(within: Tensor, targets: list[Mapping[str, Tensor]]) -> tuple[int, int]:
    """Return how many objects have their center within, and how many there are."""
    held = total = 0
    for inside, target in zip(within, targets, strict=True):
        boxes = target["boxes"][~target["ignored"]]
        centers = boxes.reshape(-1, 2, 2).mean(1).long()  # a pixel reaches from its number to the next
        x, y = centers[:, 0].clamp(0, inside.shape[1] - 1), centers[:, 1].clamp(0, inside.shape[0] - 1)
        held, total = held + int(inside[y, x].sum()), total + len(centers)
    return held, total
