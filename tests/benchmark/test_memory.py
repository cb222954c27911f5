"""Peak memory against steps whose allocations can be counted by hand."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from foveate.benchmark import peak_step_memory

FLOAT = 4


def test_a_linear_layer() -> None:
    """At the peak: the gradient of the weight, the gradient of the output (which ones·1 becomes), two scalars."""
    rows, inputs, outputs = 3, 1009, 501
    model = nn.Linear(inputs, outputs, bias=False)
    peak = peak_step_memory(model, torch.randn(rows, inputs))
    assert peak == FLOAT * (inputs * outputs + rows * outputs + 2)


class Chain(nn.Module):
    """Squares its input ``length`` times: every square keeps its operand for the backward pass."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * self.scale
        for _ in range(self.length):
            x = x.square()
        return x


@pytest.mark.parametrize("pixels", [10_007, 20_011])
def test_each_layer_adds_what_it_keeps(pixels: int) -> None:
    batch = torch.rand(1, pixels)
    peaks = [peak_step_memory(Chain(length), batch) for length in (4, 5, 9)]
    assert peaks[1] - peaks[0] == FLOAT * pixels
    assert peaks[2] - peaks[1] == 4 * FLOAT * pixels


@pytest.mark.slow
def test_the_figure_is_the_same_every_time_and_grows_with_the_batch() -> None:
    model = timm.create_model("resnet10t", num_classes=10)
    batch = torch.randn(4, 3, 40, 56)
    assert peak_step_memory(model, batch) == peak_step_memory(model, batch)
    gradients = FLOAT * sum(p.numel() for p in model.parameters())
    small, large = (peak_step_memory(model, batch[:n]) for n in (2, 4))
    assert gradients < small < large


def test_the_model_and_the_generators_are_left_as_they_were() -> None:
    model = timm.create_model("resnet10t", num_classes=10, drop_rate=0.5).train()
    model.layer1.eval()
    batch = torch.randn(2, 3, 32, 32)
    model(batch).sum().backward()
    modes = [module.training for module in model.modules()]
    state, grads = copy.deepcopy(model.state_dict()), [p.grad.clone() for p in model.parameters()]
    generator = torch.get_rng_state()
    with torch.no_grad():  # what the caller is in must not matter
        assert peak_step_memory(model, batch) > 0
    assert torch.equal(generator, torch.get_rng_state())
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(p.grad, grad) for p, grad in zip(model.parameters(), grads, strict=True))


def test_a_batch_on_another_device_is_refused() -> None:
    with pytest.raises(ValueError, match=r"batch is on meta, the model on cpu"):
        peak_step_memory(nn.Linear(3, 4), torch.empty(2, 3, device="meta"))
    with pytest.raises(ValueError, match=r"cpu or a cuda device; got meta"):
        peak_step_memory(nn.Linear(3, 4, device="meta"), torch.empty(2, 3, device="meta"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_a_chain_keeps_the_same() -> None:
    batch = torch.rand(1, 1 << 20, device="cuda")
    peaks = [peak_step_memory(Chain(length).cuda(), batch) for length in (4, 9)]
    assert peaks[1] - peaks[0] == 5 * FLOAT * batch.numel()
