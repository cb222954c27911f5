"""Equivariance: where a network looks must move with the image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foveate._networks import gates
from foveate.functional import random_similarities, rectangle_distance, transform_points, visible, warp
from foveate.training.recipe import Recipe

__all__ = ["Equivariance", "check_gates", "map_loss", "rectangle_loss"]


class Equivariance:
    """Adds to a training step how far the gates of a network are from following their image.

    For each image ``x`` a similarity ``T`` is drawn, and what the network's gates do is compared in ``x`` and
    ``T(x)``: of `RectangularAttention2d` the rectangles (`rectangle_loss`), of others the maps (`map_loss`); the term
    is the mean over the gates.

    ``T(x)`` takes a pass of its own in training mode, which normalises by its own batch and leaves the running
    statistics alone. So the logits, the classification loss and the statistics that the network is tested with are
    those of training without the term: ``T(x)``, part of which is filled up by reflection, enters none of them. Nor
    has what lies behind the last gate anything to do for ``T(x)`` in the backward pass, so that a step is shorter than
    with one pass over ``x`` and ``T(x)`` together: 1.5 times that without the term, not 1.9 (on a CPU).

    What is drawn depends on ``(seed, epoch, step)`` alone, with ``step`` counting the batches of the epoch.

    Args:
        network: With gates in it; it is not changed.
        recipe: From which the ranges of ``T`` are read.
        seed: Of what is drawn.

    Raises:
        ValueError: The network has no gate.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, *, seed: int = 0) -> None:
        self.network = network
        self.gates = check_gates(network)
        self.ranges = {
            "shift": 2 * recipe.equivariance_shift,
            "rotation": math.radians(recipe.equivariance_rotation),
            "scale": recipe.equivariance_scale,
        }
        self.seed = seed

    def __call__(self, images: Tensor, *, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Return the logits ``(B, num_classes)`` of ``images`` and the term, of which smaller is better.

        Args:
            images: ``(B, C, H, W)``.
            epoch: Number of the epoch, from 0.
            step: Number of the batch in the epoch, from 0.
        """
        similarity = self.draw(len(images), epoch=epoch, step=step).to(images.device)
        aspect = images.shape[3] / images.shape[2]
        with self._observed() as before:
            logits = self.network(images)
        with self._observed() as after, _statistics_kept(self.network):
            self.network(warp(images, similarity))
        terms = [
            (rectangle_loss if hasattr(gate, "rectangle") else map_loss)(gate, x, moved_x, similarity, aspect=aspect)
            for (gate, x), (_, moved_x) in zip(before, after, strict=True)
        ]
        return logits, torch.stack(terms).mean()

    def draw(self, size: int, *, epoch: int, step: int) -> Tensor:
        """Return the similarities ``(size, 4)`` of a batch, on the CPU."""
        key = np.random.SeedSequence([self.seed, epoch, step]).generate_state(1, np.uint64)
        return random_similarities(size, **self.ranges, generator=torch.Generator().manual_seed(int(key[0])))

    @contextmanager
    def _observed(self) -> Iterator[list[tuple[nn.Module, Tensor]]]:
        """Collect the input of every gate while the network runs."""
        seen: list[tuple[nn.Module, Tensor]] = []

        def observe(gate: nn.Module, inputs: tuple[Any, ...]) -> None:
            seen.append((gate, inputs[0]))

        handles = [gate.register_forward_pre_hook(observe) for gate in self.gates.values()]
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()


def check_gates(network: nn.Module) -> dict[str, nn.Module]:
    """Return the gates of ``network`` by name.

    Raises:
        ValueError: It has none.
    """
    found = gates(network)
    if not found:
        raise ValueError(
            f"equivariance is asked of gates, and {type(network).__name__} has none; leave equivariance at 0, or use a "
            "network with them, such as cram_resnet_tiny, or foveate.insert(network, RectangularAttention2d). In "
            "`foveate compare` it can be given for one network: cram_resnet_tiny:equivariance=1"
        )
    return found


def rectangle_loss(gate: Any, x: Tensor, moved_x: Tensor, similarity: Tensor, *, aspect: float = 1.0) -> Tensor:
    """Return the mean of ``d²(T(rectangle), rectangle of T(image))``, see `foveate.functional.rectangle_distance`.

    Images whose rectangle's centre ``T`` carries out of the image are left out: what it was on may be gone.

    Args:
        gate: A `foveate.nn.RectangularAttention2d`.
        x: What it gets of the images, ``(B, C, h, w)``.
        moved_x: What it gets of the images warped.
        similarity: ``T`` of each image, ``(B, 4)``.
        aspect: Width of the image divided by its height.
    """
    rectangle = gate.rectangle(x)
    distance = rectangle_distance(rectangle, gate.rectangle(moved_x), similarity=similarity, aspect=aspect)
    centre = transform_points(rectangle[:, :2].detach(), similarity, aspect=aspect)
    return _mean(distance, (centre.abs() <= 1).all(1))


def map_loss(gate: Any, x: Tensor, moved_x: Tensor, similarity: Tensor, *, aspect: float = 1.0) -> Tensor:
    """Return the mean of ``(T(A) − A')²`` where ``T(image)`` shows the image; ``A`` and ``A'`` are the maps of both.

    Arguments as in `rectangle_loss`; any gate will do. A gate that is the same everywhere makes it zero, whereas a
    rectangle that stays where it is does not make `rectangle_loss` zero: the two cannot be compared by size.
    """
    expected = warp(gate.attention_map(x), similarity, aspect=aspect)
    return _mean((expected - gate.attention_map(moved_x)).square(), visible(expected, similarity, aspect=aspect))


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean of the chosen ones; zero, with a gradient of zero, where there are none."""
    return (values * chosen).sum() / chosen.sum().clamp(min=1)


@contextmanager
def _statistics_kept(network: nn.Module) -> Iterator[None]:
    """Let normalisation use the batch, as in training, and not count it in the running statistics."""
    norms: list[Any] = [module for module in network.modules() if getattr(module, "track_running_stats", False)]
    try:
        for norm in norms:
            norm.track_running_stats = False
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
