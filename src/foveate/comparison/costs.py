"""Costs of the networks of a comparison, measured interleaved."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from foveate.benchmark import images_per_second, network_cost, peak_step_memory
from foveate.comparison.config import CompareConfig
from foveate.models.inspection import FAILURES
from foveate.training.build import Data, build, configured_task
from foveate.training.freezing import freeze
from foveate.training.module import to_device

__all__ = ["measure_costs"]

logger = logging.getLogger(__name__)

Figure = TypeVar("Figure")


def measure_costs(config: CompareConfig, data: Data, device: torch.device) -> dict[str, dict[str, Any]]:
    """Measure all networks side by side on random images, in float32 and the memory format of training.

    Returns:
        For each network ``parameters``, ``flops`` (per image, 2 per multiply-add), ``images_per_second`` (``median``,
        ``q1``, ``q3``) and ``peak_memory`` (bytes that a training step adds), the last three None if they could not be
        measured.
    """
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    networks = {}
    for spec in config.models:  # costs do not depend on the weights, which may be gone by now
        run = dataclasses.replace(config.run_of(spec, 0), pretrained=False)
        networks[spec] = build(run, data)[0].to(memory_format=layout)
        freeze(networks[spec], run.freeze)
    costs: dict[str, dict[str, Any]] = {}
    for spec, network in networks.items():
        cost = _measured(partial(network_cost, network, (3, *data.image_size)))
        costs[spec] = {
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "flops": None if cost is None else cost.flops,
            "images_per_second": None,
            "peak_memory": None,
        }

    def on_device() -> Tensor:
        for network in networks.values():
            network.to(device)
        return torch.randn(config.batch_size, 3, *data.image_size, device=device).contiguous(memory_format=layout)

    batch, loss = _measured(on_device), _measured(lambda: _loss_of(config, data, device))
    if batch is None:
        return costs
    rates = _measured(lambda: images_per_second(networks, batch))
    for spec, network in networks.items():
        costs[spec]["images_per_second"] = None if rates is None else rates[spec]._asdict()
        if loss is not None:
            costs[spec]["peak_memory"] = _measured(partial(peak_step_memory, network, batch, *loss))
    return costs


def _loss_of(config: CompareConfig, data: Data, device: torch.device) -> tuple[Callable[..., Tensor], ...]:
    """Return the loss of a step where there is a head; a classifier's step is measured with the sum of its logits."""
    run = config.run_of(config.models[0], 0)
    task = configured_task(run, data)
    if not task.head:
        return ()
    loaders = data.loaders(batch_size=config.batch_size, seed=0, samples=task.samples)
    targets = to_device(next(iter(loaders.train))[1], device)

    def loss(network: nn.Module, images: Tensor) -> Tensor:
        images = images[: len(targets)]  # fewer where one could not be read
        return task.loss(task.forward(network, images, targets), targets)

    return (loss,)


def _measured(measure: Callable[[], Figure]) -> Figure | None:
    """Return what ``measure`` gives; None if it fails, for want of memory say: what was trained is to be kept."""
    try:
        return measure()
    except (ValueError, OSError, *FAILURES) as error:
        logger.warning("could not be measured and is left out: %s", error)
        return None
