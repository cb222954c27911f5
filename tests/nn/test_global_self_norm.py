"""The normalization between the passes of GSA, computed with them in training: that of PyTorch in every mode."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import foveate
from tests.comparison import relative_error
from tests.kernels.test_cpu import BUILT
from tests.nn.test_global_self_training import gradients, made

pytestmark = [
    pytest.mark.skipif(not BUILT, reason="no kernels were compiled"),
    pytest.mark.filterwarnings("ignore:a map is larger"),
]


@pytest.mark.parametrize(
    "settings",
    [{}, {"momentum": None}, {"momentum": 0.0}, {"affine": False}, {"track_running_stats": False}, {"eps": 0.5}],
    ids=str,
)
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_the_normalization_is_pytorchs(settings: dict[str, Any], offset: float) -> None:
    module, x = made()
    module.norm = nn.BatchNorm2d(9, dtype=torch.float64, **settings)
    module.rel_height.data += offset  # the column pass far from zero
    other = copy.deepcopy(module)
    for step, training in enumerate((True, True, False, True, True)):
        if step == 4:
            module.norm.track_running_stats = other.norm.track_running_stats = False
        got = [module.train(training)(x), *gradients(module, x)]
        with foveate.plain_operators():
            wanted = [other.train(training)(x), *gradients(other, x)]
        for a, b in zip(got, wanted, strict=True):
            assert relative_error(a, b) <= 1e-8 * max(1.0, offset / 1e2)
        states = module.state_dict(), other.state_dict()
        assert states[0].keys() == states[1].keys()
        for name in states[0]:
            assert relative_error(states[0][name], states[1][name]) <= 1e-12
    with pytest.raises(ValueError, match="more than 1 value"):
        module.train()(x[:1, :, :1, :1])


def test_sizes_that_do_not_fit_are_refused_by_operators() -> None:
    module, x = made()
    for training in (True, False):
        for norm in (nn.BatchNorm2d(8), nn.BatchNorm2d(12), nn.BatchNorm2d(8, track_running_stats=False)):
            module.norm = norm.double()
            with pytest.raises((RuntimeError, ValueError)):
                module.train(training)(x)
    for name in ("rel_height", "rel_width"):
        module, x = made()
        setattr(module, name, nn.Parameter(getattr(module, name)[:, :1].detach()))
        with pytest.raises((RuntimeError, ValueError)):
            module(x)


def test_running_statistics_that_were_taken_away() -> None:
    module, x = made()
    module.norm.running_mean = module.norm.running_var = None
    other = copy.deepcopy(module)
    with foveate.plain_operators():
        wanted = other.train()(x)
    assert relative_error(module.train()(x), wanted) <= 1e-12
    assert module.norm.num_batches_tracked == other.norm.num_batches_tracked == 1
    module, x = made()
    module.norm.running_mean = None
    for training in (True, False):
        with pytest.raises((RuntimeError, ValueError), match="running_mean"), torch.no_grad():
            module.train(training)(x)
