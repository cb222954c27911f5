"""Equivariance: where a network looks must move with the image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foveate.functional import random_similarities, transform_points, warp
from foveate.models.dense import seen_size
from foveate.models.inspection import eager, gates
from foveate.nn import SpatialAttention
from foveate.training.recipe import Recipe

__all__ = ["Equivariance", "check_gates"]


class Equivariance:
    """Adds to a training step how far the gates of a network are from following their image.

    For each image ``x`` a similarity ``T`` is drawn, and what the network's gates do is compared in ``x`` and
    ``T(x)`` by its ``equivariance_loss``: of `RectangularAttention2d` the rectangles, of others the maps; the term is
    the mean over the gates.

    ``T(x)`` takes a pass of its own in training mode, which normalizes by its own batch and leaves the running
    statistics alone. So the logits, the classification loss and the statistics that the network is tested with are
    those of training without the term: ``T(x)``, part of which is filled up by reflection, enters none of them. Nor
    has what lies behind the last gate anything to do for ``T(x)`` in the backward pass, so that a step is shorter than
    with one pass over ``x`` and ``T(x)`` together: 1.5 times that without the term, not 1.9 (on a CPU).

    Where the network pads its images (`foveate.models.dense.Segmenter`), ``T`` moves the image, and gates are compared
    in the coordinates of what the network sees.

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

    def __call__(
        self, images: Tensor, compute: Callable[[Tensor], Any] | None = None, *, epoch: int, step: int
    ) -> tuple[Any, Tensor]:
        """Return the network's outputs for ``images`` and the term, of which smaller is better.

        Args:
            images: ``(B, C, H, W)``.
            compute: Turns images into outputs, by the network; the network itself if not given.
            epoch: Number of the epoch, from 0.
            step: Number of the batch in the epoch, from 0.
        """
        compute = compute or self.network
        similarity = self.draw(len(images), epoch=epoch, step=step).to(images.device)
        height, width = images.shape[2:]
        frame = seen_size(eager(self.network), (height, width))
        framed, aspect = in_frame(similarity, (height, width), frame), frame[1] / frame[0]
        with self._observed() as before:
            outputs = compute(images)
        with self._observed() as after, _statistics_kept(self.network):
            compute(warp(images, similarity))
        terms = [
            gate.equivariance_loss(x, moved_x, framed, aspect=aspect)
            for (gate, x), (_, moved_x) in zip(before, after, strict=True)
        ]
        return outputs, torch.stack(terms).mean()

    def draw(self, size: int, *, epoch: int, step: int) -> Tensor:
        """Return the similarities ``(size, 4)`` of a batch, on the CPU."""
        key = np.random.SeedSequence([self.seed, epoch, step]).generate_state(1, np.uint64)
        return random_similarities(size, **self.ranges, generator=torch.Generator().manual_seed(int(key[0])))

    @contextmanager
    def _observed(self) -> Iterator[list[tuple[SpatialAttention, Tensor]]]:
        """Collect the input of every gate while the network runs."""
        seen: list[tuple[SpatialAttention, Tensor]] = []

        def observe(gate: SpatialAttention, inputs: tuple[Any, ...]) -> None:
            seen.append((gate, inputs[0]))

        handles = [gate.register_forward_pre_hook(observe) for gate in self.gates.values()]
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()


def in_frame(similarity: Tensor, size: tuple[int, int], frame: tuple[int, int]) -> Tensor:
    """Return the similarities of an image in the coordinates of a frame, in whose upper left corner it lies.

    A place ``p`` of the image is ``q = a p + a − 1`` in the frame, ``a`` being the ratio of their sides; angles and
    factors stay, but the middle about which they turn and enlarge is another.

    Args:
        similarity: ``(B, 4)``, see `foveate.functional.similarity_matrix`.
        size: Height and width of the image.
        frame: Those of the frame.
    """
    if frame == size:
        return similarity
    ratio = similarity.new_tensor([size[1] / frame[1], size[0] / frame[0]])
    middle = ((1 - ratio) / ratio).expand(len(similarity), 1, 2)
    moved = transform_points(middle, similarity, aspect=size[1] / size[0])[:, 0]
    return torch.cat([ratio * moved + ratio - 1, similarity[:, 2:]], dim=1)


def check_gates(network: nn.Module) -> dict[str, SpatialAttention]:
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


@contextmanager
def _statistics_kept(network: nn.Module) -> Iterator[None]:
    """Normalize by the batch, as in training, without updating the running statistics."""
    norms: list[Any] = [module for module in network.modules() if getattr(module, "track_running_stats", False)]
    try:
        for norm in norms:
            norm.track_running_stats = False
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
