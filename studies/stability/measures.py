"""How steady what networks look at is: between layers, under changes of the image, between seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from scipy import stats
from torch import Tensor

from foveate import _checks
from foveate.explain.map_similarity import correlation, half_maximum_iou
from foveate.functional import random_similarities, warp

__all__ = ["VARIANT", "MapSimilarities", "OverSeeds", "combined", "mild_variant", "over_seeds"]

VARIANT = {"shift": 0.1, "rotation": 15.0, "scale": 1.1, "colour": 1.25}
"""What `mild_variant` changes at most: sides of the image, degrees, factors."""


def mild_variant(
    images: Tensor, *, mean: Iterable[float], std: Iterable[float], generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Return images changed a little, as another photograph of the same would be, and the similarity of each.

    Each is shifted, turned and scaled at random within `VARIANT` (`foveate.functional.warp`), then its contrast ``a``
    and its brightness ``b`` are multiplied by factors whose logarithms are uniform: with pixels ``x`` in [0, 1] of
    mean ``g``, they become ``b (g + a (x − g))``, cut to [0, 1].

    Args:
        images: ``(B, C, H, W)``, normalised.
        mean: Of each channel, as it was subtracted from pixels in [0, 1].
        std: Of each channel, as they were then divided by.
        generator: Where the random numbers come from.
    """
    ranges = {"shift": 2 * VARIANT["shift"], "rotation": math.radians(VARIANT["rotation"]), "scale": VARIANT["scale"]}
    similarity = random_similarities(len(images), **ranges, generator=generator)
    factors = (2 * torch.rand(len(images), 2, generator=generator) - 1) * math.log(VARIANT["colour"])
    contrast, brightness = factors.exp().to(images.device)[:, :, None, None, None].unbind(1)
    offset, unit = (torch.tensor(tuple(values), device=images.device)[:, None, None] for values in (mean, std))
    pixels = warp(images * unit + offset, similarity.to(images.device))
    grey = pixels.mean((1, 2, 3), keepdim=True)
    changed = (brightness * (grey + contrast * (pixels - grey))).clamp(0, 1)
    return (changed - offset) / unit, similarity


@dataclass(frozen=True)
class OverSeeds:
    """A figure, and how much it would move with other seeds."""

    mean: float
    low: float | None
    """Ends of the interval; None with a single seed."""
    high: float | None
    confidence: float
    seeds: int


Values = Mapping[tuple[int, ...], float]
"""Figures by the seeds of the networks that they come from: one of each network, two of each pair."""


def over_seeds(values: Values, *, confidence: float = 0.95) -> OverSeeds | None:
    """Return the mean of ``values`` with a jackknife interval over the ``n`` seeds.

    With ``m_i`` the mean of the values in which seed ``i`` has no part and ``m̄`` their mean,

        mean ± t_{n−1} √((n − 1)/n Σ_i (m_i − m̄)²).

    Where each value comes from one seed, this is Student's interval for a mean. Pairs of seeds are not independent of
    one another (each seed is in several), which leaving out a *seed* takes into account. NaN values are left out.

    Returns:
        None if there is no value; without an interval if leaving out some seed leaves nothing.

    Raises:
        ValueError: ``confidence`` is not between 0 and 1.
    """
    _checks.confidence(confidence)
    values = {seeds: value for seeds, value in values.items() if not math.isnan(value)}
    if not values:
        return None
    mean = _mean(values.values())
    seeds = sorted({seed for among in values for seed in among})
    number = len(seeds)
    without = [[value for among, value in values.items() if seed not in among] for seed in seeds]
    if not all(without):
        return OverSeeds(mean, None, None, confidence, number)
    means = [_mean(left) for left in without]
    error = math.sqrt((number - 1) / number * sum((m - _mean(means)) ** 2 for m in means))
    reach = float(stats.t.ppf((1 + confidence) / 2, number - 1)) * error
    return OverSeeds(mean, mean - reach, mean + reach, confidence, number)


def combined(several: Iterable[Values]) -> dict[tuple[int, ...], float]:
    """Return the mean of several figures of the same seeds, seed by seed; NaN values are left out."""
    together: dict[tuple[int, ...], list[float]] = {}
    for values in several:
        for seeds, value in values.items():
            together.setdefault(seeds, []).append(value)
    return {seeds: _mean(value for value in found if not math.isnan(value)) for seeds, found in together.items()}


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values) if values else math.nan


@dataclass
class MapSimilarities:
    """Collects how much maps agree, batch by batch, by the seeds of the networks that they come from.

    Four figures are kept of each pair of maps: `correlation` and `half_maximum_iou`; and, as ``chance_correlation``
    and ``chance_iou``, the same of the map of one image and the other map of the *next image of the batch*: what maps
    have in common that have nothing to do with the image.
    """

    _values: dict[str, dict[tuple[int, ...], list[Tensor]]] = field(default_factory=dict)

    def add(self, seeds: tuple[int, ...], maps: Tensor, others: Tensor, where: Tensor | None = None) -> None:
        """Add the maps ``(B, H, W)`` of a batch; ``where`` as in `correlation`."""
        pairs = {"": others}
        if len(others) > 1:
            pairs["chance_"] = others.roll(-1, dims=0)
        for prefix, compared in pairs.items():
            for name, measure in (("correlation", correlation), ("iou", half_maximum_iou)):
                by_seeds = self._values.setdefault(f"{prefix}{name}", {})
                by_seeds.setdefault(seeds, []).append(measure(maps, compared, where))

    def means(self) -> dict[str, dict[tuple[int, ...], float]]:
        """Return the mean over images of each figure, those left out where it is not defined, by seeds."""
        return {
            name: {seeds: torch.cat(parts).nanmean().item() for seeds, parts in by_seeds.items()}
            for name, by_seeds in self._values.items()
        }

    def undefined(self) -> float:
        """Return the share of pairs whose correlation is not defined."""
        parts = [part for found in self._values.get("correlation", {}).values() for part in found]
        return torch.cat(parts).isnan().double().mean().item() if parts else 0.0
