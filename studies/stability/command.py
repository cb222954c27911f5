"""``python -m studies.stability``: how steady what networks look at is, between layers, changed images and seeds."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foveate import _checks
from foveate.data import TransformConfig
from foveate.explain import attention_records
from foveate.explain.map_similarity import half_maximum, total_variation
from foveate.functional import visible, warp
from foveate.io.environment import environment
from foveate.io.files import read_json, writable_folder, write_bytes, write_json, write_text
from foveate.training import check_device
from studies.stability.figure import draw
from studies.stability.measures import VARIANT, MapSimilarities, combined, mild_variant, over_seeds
from studies.stability.table import COMPARED, to_markdown
from studies.trained import SeededNetwork, ShownConfig, gate_name, networks_of, open_shown

__all__ = ["StabilityConfig", "run"]

MEASURES = ("correlation", "iou", "chance_correlation", "chance_iou")
OF_MAPS = ("total_variation", "range", "inside")


@dataclass(kw_only=True)
class StabilityConfig(ShownConfig):
    """Measure how steady what trained networks look at is: between layers, changed images, and seeds.

    Attributes:
        augmentations: How many changed variants of each image are looked at.
        out: Folder for stability.json, stability.md and stability.svg.
    """

    augmentations: int = 4
    out: str = "runs/stability-report"

    def check(self) -> None:
        """Raise a `ValueError` that names the first setting that is out of its range, data apart."""
        super().check()
        _checks.integer("augmentations", self.augmentations)


@dataclass(frozen=True, order=True)
class Place:
    """A row of the table: an attention module, whatever the seed."""

    family: str
    """The network, whatever the place of its attention."""
    together: bool
    """Whether the network has attention in several places; else networks with one each belong together."""
    gate: str


def run(config: StabilityConfig) -> dict[str, Any]:
    """Measure, print the table, and save it with its figure in ``config.out``.

    Maps are compared at the resolution of the image by their correlation and by the IoU of their half-maximum regions
    (see `foveate.explain.map_similarity`), beside what maps of unrelated images give (``chance_…``):

    - ``changes``: the map of an image, moved as the image was, and the map of the changed image
      (`studies.stability.measures.mild_variant`), where that shows the image;
    - ``seeds``: the maps of networks that differ in nothing but their seed;
    - ``layers``: the maps of the modules of one network; of networks with one module, those of one seed that differ
      in nothing but its place.

    Returns:
        What ``stability.json`` holds. ``places`` is a list with, for each attention module of each network: ``family``
        and ``together`` (the series it belongs to), ``label``, ``gate``, ``kind``, ``seeds``, ``total_variation``,
        ``range`` (maximum less minimum), ``inside`` (share of the image in the half-maximum region), and
        ``agreement``, the comparisons above, None where there is nothing to compare. Each figure is a mean with an
        interval over seeds, see `studies.stability.measures.over_seeds`; those of ``layers`` are means over the other
        modules, and ``pairs`` has them one by one. ``undefined`` is the share of pairs of maps whose correlation is
        not defined.

    Raises:
        ValueError: A setting is wrong, or the networks and the data do not go together.
    """
    config.check()
    device = check_device(config.device, "32-true")
    networks = networks_of(config.checkpoints)
    data, transform, images = open_shown(config, networks)
    out = writable_folder(Path(config.out))
    for network in networks:
        network.network.to(device)
    collected = _Collected(networks)
    for index, batch in enumerate(images):
        collected.add(batch, list(_variants(config, transform, batch, index)))
    table = {
        "data": data.name,
        "split": config.split,
        "images": images.shown,
        "augmentations": config.augmentations,
        "variant": VARIANT,
        **collected.rows(),
        "environment": environment(device),
    }
    write_json(out / "stability.json", table)
    table = read_json(out / "stability.json")
    write_text(out / "stability.md", to_markdown(table))
    write_bytes(out / "stability.svg", draw(table))
    print(f"{to_markdown(table)}\nsaved in {out}: stability.json, stability.md, stability.svg")
    return table


def _variants(config: StabilityConfig, transform: TransformConfig, batch: Tensor, index: int) -> Any:
    """Yield the changed variants of a batch, the same for all networks, and their similarities."""
    for number in range(config.augmentations):
        key = np.random.SeedSequence([config.seed, index, number]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(key[0]))
        yield mild_variant(batch, mean=transform.mean, std=transform.std, generator=generator)


class _Collected:
    """What was measured so far."""

    def __init__(self, networks: Sequence[SeededNetwork]) -> None:
        self.networks = networks
        self.labels: dict[Place, tuple[str, str]] = {}
        self.seeds: dict[Place, set[int]] = {}
        self.maps: dict[tuple[Place, str], dict[tuple[int, ...], list[Tensor]]] = {}
        self.similarities: dict[tuple[str, Place, Place], MapSimilarities] = {}

    def add(self, images: Tensor, variants: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Look at a batch with all networks."""
        seen = [self._look(network, images, variants) for network in self.networks]
        for maps, network in zip(seen, self.networks, strict=True):
            for one, two in itertools.combinations(maps, 2):
                self._compare("layers", one, two, (network.seed,), maps[one], maps[two])
        pairs = itertools.combinations(zip(self.networks, seen, strict=True), 2)
        for (network, maps), (other, others) in pairs:
            if network.label == other.label:
                for place in maps:
                    self._compare("seeds", place, place, (network.seed, other.seed), maps[place], others[place])
            elif network.seed == other.seed and network.family == other.family and len(maps) == len(others) == 1:
                (one,), (two,) = maps, others
                self._compare("layers", one, two, (network.seed,), maps[one], others[two])

    def _look(
        self, network: SeededNetwork, images: Tensor, variants: Sequence[tuple[Tensor, Tensor]]
    ) -> dict[Place, Tensor]:
        """Return the maps of a network at the size of the images, and note what they are alone."""
        maps = {}
        records = attention_records(network.network, images)
        for record in records:
            place = Place(network.family, len(records) > 1, gate_name(record.name))
            self.labels[place] = (network.label, record.kind)
            self.seeds.setdefault(place, set()).add(network.seed)
            maps[place] = record.resampled("bilinear")
            inside = half_maximum(maps[place]).double().mean((1, 2))
            spread = record.map.amax((1, 2)) - record.map.amin((1, 2))
            for name, values in zip(OF_MAPS, (total_variation(record.map), spread, inside), strict=True):
                self.maps.setdefault((place, name), {}).setdefault((network.seed,), []).append(values)
        for changed, similarity in variants:
            for (place, before), record in zip(maps.items(), attention_records(network.network, changed), strict=True):
                moved = warp(before[:, None], similarity)[:, 0]
                where = visible(before[:, None], similarity)[:, 0]
                after = record.resampled("bilinear")
                self._compare("changes", place, place, (network.seed,), moved, after, where)
        return maps

    def _compare(self, what: str, one: Place, other: Place, seeds: tuple[int, ...], *maps: Tensor) -> None:
        pair = sorted((one, other), key=_natural)
        self.similarities.setdefault((what, pair[0], pair[1]), MapSimilarities()).add(seeds, *maps)

    def rows(self) -> dict[str, Any]:
        """Return the figures of each place, and of each pair of layers."""
        places = []
        for place in sorted(self.labels, key=_natural):
            label, kind = self.labels[place]
            row: dict[str, Any] = {**dataclasses.asdict(place), "label": label, "kind": kind}
            row["seeds"] = sorted(self.seeds[place])
            for name in OF_MAPS:
                found = self.maps[place, name]
                row[name] = _figure({seeds: torch.cat(parts).double().mean().item() for seeds, parts in found.items()})
            row["agreement"] = {
                what: _figures([a for (w, *pair), a in self.similarities.items() if w == what and place in pair])
                for what in COMPARED
            }
            places.append(row)
        pairs = [
            {
                "family": one.family,
                "together": one.together,
                "gates": [one.gate, other.gate],
                **_figures([similarities]),
            }
            for (what, one, other), similarities in self.similarities.items()
            if what == "layers"
        ]
        return {"places": places, "pairs": pairs}


def _natural(place: Place) -> tuple[Any, ...]:
    """Return by what places are ordered: ``blocks.10`` after ``blocks.9``."""
    number = [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", place.gate)]
    return place.family, place.together, number


def _figures(several: Sequence[MapSimilarities]) -> Any:
    """Return the means of what several comparisons gave."""
    if not several:
        return None
    means = [similarities.means() for similarities in several]
    figures: dict[str, Any] = {
        name: _figure(combined(found[name] for found in means if name in found)) for name in MEASURES
    }
    figures["undefined"] = sum(similarities.undefined() for similarities in several) / len(several)
    return figures


def _figure(values: Mapping[tuple[int, ...], float]) -> dict[str, Any] | None:
    spread = over_seeds(values)
    if spread is None:
        return None
    each = {"+".join(map(str, seeds)): value for seeds, value in values.items()}
    return {**dataclasses.asdict(spread), "values": each}
