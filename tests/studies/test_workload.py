"""What is timed: all of a step is done, and nothing is changed by it."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from foveate.benchmark import network_cost, step_flops
from studies.bench.subject import prepared
from studies.bench.workload import Workload, least_traffic

FLOAT = 4


@pytest.mark.parametrize("mode", ["forward", "step"])
def test_weights_stay_where_they_are(mode: str) -> None:
    network = prepared(lambda: timm.create_model("conv_resnet_tiny", num_classes=7), 0)
    weights = copy.deepcopy(dict(network.named_parameters()))
    x = torch.randn(4, 3, 32, 32)
    call = Workload(network, x, mode=mode, dtype=torch.float32, network=True)
    call()
    call()
    assert all(torch.equal(parameter, weights[name]) for name, parameter in network.named_parameters())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert network.training == (mode == "step")
    moved = [state["momentum_buffer"].abs().sum() for state in call.optimiser.state.values()]
    assert len(moved) == (len(weights) if mode == "step" else 0)
    assert all(moved)


@pytest.mark.parametrize("network", [False, True])
def test_the_flops_of_a_step_are_those_that_are_counted_when_it_runs(network: bool) -> None:
    module = nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.ReLU(), nn.Conv2d(5, 7, 3, stride=2))
    call = Workload(module, torch.randn(4, 3, 17, 13), mode="step", dtype=torch.float32, network=network)
    with FlopCounterMode(display=False) as counter:
        call()
    assert counter.get_total_flops() == 4 * step_flops(module, (3, 17, 13), input_gradient=not network)


def test_a_backward_pass_costs_twice_the_forward_pass() -> None:
    module = nn.Conv2d(3, 5, 3)
    forward = network_cost(module, (3, 17, 13)).flops
    assert forward == 2 * 5 * 15 * 11 * 27
    assert step_flops(module, (3, 17, 13), input_gradient=True) == 3 * forward
    assert step_flops(module, (3, 17, 13), input_gradient=False) == 2 * forward


def test_the_least_traffic_by_hand() -> None:
    module, x = nn.Conv2d(3, 5, 1), torch.randn(2, 3, 7, 11)
    inputs, outputs, weights = FLOAT * 2 * 3 * 77, FLOAT * 2 * 5 * 77, FLOAT * 20
    of = {
        (mode, network): least_traffic(module, x, outputs, mode=mode, network=network)
        for mode in ("forward", "step")
        for network in (False, True)
    }
    assert of["forward", False] == of["forward", True] == inputs + weights + outputs
    assert of["step", False] == 3 * inputs + 2 * outputs + 3 * weights
    assert of["step", True] == 2 * inputs + 2 * outputs + 8 * weights
