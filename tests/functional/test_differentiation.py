"""Forward-mode differentiation is refused where its result would be zero, and right where it is offered."""

from __future__ import annotations

import pytest
import torch

from foveate import functional as FA
from foveate.nn import GlobalSelfAttention2d


@pytest.mark.parametrize("which", range(3))
def test_forward_mode_is_refused(which: int) -> None:
    inputs = [torch.randn(1, 2, 5, 3, 4) for _ in range(3)]
    table = torch.randn(9, 4)
    calls = (
        (FA.content_attention, inputs),
        (lambda q, v, r: FA.axial_positional_attention(q, v, r, 0), [inputs[0], inputs[2], table]),
    )
    for call, arguments in calls:
        before, at, after = arguments[:which], arguments[which], arguments[which + 1 :]
        with pytest.raises(NotImplementedError, match="forward_by_maps"):
            torch.func.jvp(lambda x, f=call, a=before, b=after: f(*a, x, *b), (at,), (torch.ones_like(at),))


def test_what_it_advises_agrees_with_reverse_mode() -> None:
    module = GlobalSelfAttention2d(6, num_heads=2, feat_size=(5, 3)).double().eval()
    x, tangent = torch.randn(2, 1, 6, 5, 3, dtype=torch.float64)
    with torch.no_grad():
        _, forward = torch.func.jvp(lambda x: module.forward_by_maps(x).square().sum(), (x,), (tangent,))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(module(x).square().sum(), x)
    assert torch.allclose(forward, (gradient * tangent).sum(), rtol=1e-10)
    assert abs(forward) > 1e-3
