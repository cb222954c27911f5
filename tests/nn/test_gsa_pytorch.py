"""GSA against an implementation by others, gsa-pytorch on PyPI: same weights, same numbers, same gradients."""

from __future__ import annotations

import gsa_pytorch.gsa_pytorch as theirs_file
import pytest
import torch
from gsa_pytorch import GSA
from torch import Tensor
from torch.nn import functional as F

from foveate.nn import GlobalSelfAttention2d
from tests.comparison import TOLERANCE, relative_error

DIM, HEADS, EXTENT = 11, 3, 13


def pair_of_modules(dim_head: int, dtype: torch.dtype) -> tuple[GlobalSelfAttention2d, GSA]:
    """Return both with the same random weights and running statistics, in evaluation mode.

    Theirs normalises with statistics that the heads share, ours channel by channel; and theirs projects what it puts
    out, which the paper does not: that projection is left to the caller.
    """
    torch.manual_seed(0)
    theirs = GSA(DIM, dim_out=7, dim_key=dim_head, heads=HEADS, rel_pos_length=EXTENT).to(dtype).eval()
    width = HEADS * dim_head
    ours = GlobalSelfAttention2d(DIM, width, num_heads=HEADS, dim_key=width, feat_size=EXTENT).to(dtype).eval()
    with torch.no_grad():
        for tensor in (theirs.norm.weight, theirs.norm.bias, theirs.norm.running_mean):
            tensor.normal_()
        theirs.norm.running_var.uniform_(0.5, 2)
        ours.qkv.weight.copy_(theirs.to_qkv.weight)
        ours.rel_height.copy_(theirs.rel_rows)  # "rows" are the lines that the first axis counts
        ours.rel_width.copy_(theirs.rel_columns)
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(ours.norm, name).copy_(getattr(theirs.norm, name).repeat(HEADS))
    return ours, theirs


def gradients(output: Tensor, cotangent: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(output, inputs, cotangent)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("dim_head", "height", "width"), [(5, 7, 11), (4, 13, 5), (1, 2, 13), (3, 1, 3)])
def test_same_weights_same_numbers(
    dim_head: int, height: int, width: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if dtype == torch.float64:  # their one-hot tensor is always float32
        one_hot = theirs_file.calc_reindexing_tensor
        monkeypatch.setattr(theirs_file, "calc_reindexing_tensor", lambda *args: one_hot(*args).double())
    ours, theirs = pair_of_modules(dim_head, dtype)
    x = torch.randn(3, DIM, height, width, dtype=dtype, requires_grad=True)
    wanted = theirs(x)
    got = F.conv2d(ours(x), theirs.to_out.weight, theirs.to_out.bias)
    assert relative_error(got, wanted) < TOLERANCE[dtype]

    cotangent = torch.randn_like(wanted)
    norm = ours.norm
    mine = gradients(got, cotangent, x, ours.qkv.weight, ours.rel_height, ours.rel_width, norm.weight, norm.bias)
    norm = theirs.norm
    others = gradients(
        wanted, cotangent, x, theirs.to_qkv.weight, theirs.rel_rows, theirs.rel_columns, norm.weight, norm.bias
    )
    shared = [grad.view(HEADS, dim_head).sum(0) for grad in mine[4:]]  # what the heads share adds up
    for ours_grad, theirs_grad in zip([*mine[:4], *shared], others, strict=True):
        assert relative_error(ours_grad, theirs_grad) < TOLERANCE[dtype]
