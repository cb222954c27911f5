"""``python -m studies.equivariance``: whether what networks look at follows a shift, a rotation, a change of scale."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foveate import _checks
from foveate.explain import attention_records
from foveate.functional import random_similarities, warp
from foveate.io.environment import environment
from foveate.io.files import read_json, writable_folder, write_bytes, write_json, write_text
from foveate.training import check_device
from studies.equivariance.errors import equivariance_errors, similarities_of
from studies.equivariance.report import draw, to_markdown
from studies.stability.measures import over_seeds
from studies.trained import SeededNetwork, ShownConfig, gate_name, networks_of, open_shown

__all__ = ["EquivarianceConfig", "run"]

Samples = dict[tuple[int, ...], list[Tensor]]
"""Values of images, batch by batch, by seed."""


@dataclass(kw_only=True)
class EquivarianceConfig(ShownConfig):
    """Measure whether what trained networks look at follows when the image is shifted, turned and scaled.

    Attributes:
        shifts: Lengths of the shifts to measure, in sides of the image.
        rotations: Angles to measure, in degrees.
        scales: Factors of at least 1 to measure; half of the images shrink by them.
        shift: Largest shift along each axis where everything changes at once, in sides of the image.
        rotation: Largest rotation there, in degrees.
        scale: Largest factor there.
        out: Folder for equivariance.json, equivariance.md and equivariance.svg.
    """

    shifts: list[float] = field(default_factory=lambda: [0.05, 0.1, 0.15, 0.2, 0.25])
    rotations: list[float] = field(default_factory=lambda: [7.5, 15, 22.5, 30, 45])
    scales: list[float] = field(default_factory=lambda: [1.1, 1.2, 1.3, 1.4, 1.5])
    shift: float = 0.2
    rotation: float = 30.0
    scale: float = 1.25
    out: str = "runs/equivariance-report"

    def check(self) -> None:
        """Raise a `ValueError` that names the first setting that is out of its range, data apart."""
        super().check()
        for name, low in (("shift", 0), ("rotation", 0), ("scale", 1)):
            _checks.number(name, getattr(self, name), minimum=low)
            for value in getattr(self, f"{name}s"):
                _checks.number(f"each of {name}s", value, minimum=low)

    def transforms(self) -> list[tuple[str, float]]:
        """Return the kinds and magnitudes to measure; ``all`` is everything at once, up to the largest."""
        single = [(name, value) for name in ("shift", "rotation", "scale") for value in getattr(self, f"{name}s")]
        return [("all", 1.0), *single]

    def draw(self, kind: str, magnitude: float, size: int, generator: torch.Generator) -> Tensor:
        """Return ``size`` similarities of one of `transforms`."""
        if kind != "all":
            return similarities_of(kind, magnitude, size, generator=generator)
        ranges = {"shift": 2 * self.shift, "rotation": math.radians(self.rotation), "scale": self.scale}
        return random_similarities(size, **ranges, generator=generator)


def run(config: EquivarianceConfig) -> dict[str, Any]:
    """Measure, print the table, and save it with its figure in ``config.out``.

    Returns:
        What ``equivariance.json`` holds. ``curves`` is a list with, for each attention module of each network and each
        kind and magnitude of transform: ``label``, ``gate``, ``kind``, ``seeds``, ``transform``, ``magnitude``,
        ``errors`` and ``unmoved``. The last two hold the figures of `equivariance_errors`: of the network, and
        of one that would not move what it looks at; each a mean with an interval over seeds (see
        `studies.stability.measures.over_seeds`) and ``defined``, the share of images for which it is defined.

    Raises:
        ValueError: A setting is wrong, or the networks and the data do not go together.
    """
    config.check()
    device = check_device(config.device, "32-true")
    networks = networks_of(config.checkpoints)
    data, _, images = open_shown(config, networks)
    out = writable_folder(Path(config.out))
    for network in networks:
        network.network.to(device)
    curves: dict[tuple[str, str, str, str, float], dict[str, dict[str, Samples]]] = {}
    for index, batch in enumerate(images):
        for network, gate, kind, transform, magnitude, figures in _measured(config, networks, batch, index):
            curve = curves.setdefault((network.label, gate, kind, transform, magnitude), {})
            for side, errors in figures.items():
                for name, values in errors.items():
                    curve.setdefault(side, {}).setdefault(name, {}).setdefault((network.seed,), []).append(values)
    table = {
        "data": data.name,
        "split": config.split,
        "images": images.shown,
        "all": {name: getattr(config, name) for name in ("shift", "rotation", "scale")},
        "curves": [
            {
                **dict(zip(("label", "gate", "kind", "transform", "magnitude"), key, strict=True)),
                "seeds": sorted({network.seed for network in networks if network.label == key[0]}),
                **{side: {name: _figure(found) for name, found in figures.items()} for side, figures in sides.items()},
            }
            for key, sides in curves.items()
        ],
        "environment": environment(device),
    }
    write_json(out / "equivariance.json", table)
    table = read_json(out / "equivariance.json")
    write_text(out / "equivariance.md", to_markdown(table))
    write_bytes(out / "equivariance.svg", draw(table))
    print(f"{to_markdown(table)}\nsaved in {out}: equivariance.json, equivariance.md, equivariance.svg")
    return table


def _measured(
    config: EquivarianceConfig, networks: Sequence[SeededNetwork], images: Tensor, index: int
) -> Iterator[tuple[SeededNetwork, str, str, str, float, dict[str, dict[str, Tensor]]]]:
    """Yield what each module of each network makes of a batch under each transform, the same for all networks."""
    before = [attention_records(network.network, images) for network in networks]
    for number, (transform, magnitude) in enumerate(config.transforms()):
        key = np.random.SeedSequence([config.seed, index, number]).generate_state(1, np.uint64)
        similarity = config.draw(transform, magnitude, len(images), torch.Generator().manual_seed(int(key[0])))
        moved = warp(images, similarity.to(images.device))
        for network, records in zip(networks, before, strict=True):
            for record, after in zip(records, attention_records(network.network, moved), strict=True):
                figures = {
                    "errors": equivariance_errors(record, after, similarity),
                    "unmoved": equivariance_errors(record, record, similarity),
                }
                yield network, gate_name(record.name), record.kind, transform, magnitude, figures


def _figure(found: Samples) -> dict[str, Any] | None:
    values = {seeds: torch.cat(parts) for seeds, parts in found.items()}
    spread = over_seeds({seeds: value.nanmean().item() for seeds, value in values.items()})
    if spread is None:
        return None
    defined = 1 - torch.cat(list(values.values())).isnan().double().mean().item()
    each = {str(seeds[0]): value.nanmean().item() for seeds, value in values.items()}
    return {**dataclasses.asdict(spread), "defined": defined, "values": each}
