"""Average pooling by a convolution: the numbers of the pooling, and a pooling to whoever watches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import foveate
from foveate.functional._pooling import average_pool
from tests.comparison import TOLERANCE, relative_error


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(2, 5, 7, 13), (1, 1, 1, 1), (3, 16, 2, 1), (0, 4, 5, 5)], ids=str)
def test_it_is_the_pooling(size: tuple[int, ...], stride: int, dtype: torch.dtype, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = torch.randn(size, dtype=dtype).contiguous(memory_format=layout).requires_grad_()
    got, wanted = average_pool(x, stride), F.avg_pool2d(x.double(), 3, stride, padding=1)
    assert (got.dtype, got.shape) == (dtype, wanted.shape)
    assert got.is_contiguous(memory_format=layout) or not len(x)  # of no images, PyTorch's pooling forgets it
    cotangent = torch.randn_like(got)
    (grad,) = torch.autograd.grad(got, x, cotangent)
    (wanted_grad,) = torch.autograd.grad(wanted, x, cotangent.double())
    tolerance = TOLERANCE.get(dtype, 1e-2)
    assert relative_error(got, wanted) <= tolerance
    assert relative_error(grad, wanted_grad) <= tolerance


def test_whoever_watches_sees_a_pooling() -> None:
    x = torch.randn(2, 3, 5, 7)

    def pool(x: Tensor) -> Tensor:
        return average_pool(x, 2)

    with FlopCounterMode(display=False) as counter:
        pool(x)
    assert counter.get_total_flops() == 0
    with foveate.plain_operators():
        assert torch.equal(pool(x), F.avg_pool2d(x, 3, 2, padding=1))
    assert "avg_pool2d" in str(torch.jit.trace(pool, x, check_trace=False).graph)
    with torch.autocast("cpu", torch.bfloat16):
        assert pool(x).dtype == torch.float32
