"""Every module against plain loops in float64: values and all gradients, 200 random configurations each."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import pytest
import torch

from foveate import functional as FA
from foveate.functional import explicit as explicit_file
from foveate.nn import (
    AttentionAugmentedConv2d,
    ExpAttConv2d,
    ExplicitAttention2d,
    GlobalSelfAttention2d,
    PositionwiseAttention2d,
    RectangularAttention2d,
)
from tests.comparison import TOLERANCE, Case, errors, random_map, shaken
from tests.reference import attention as reference

pytestmark = pytest.mark.usefixtures("shapes")

CONFIGURATIONS, PARTS = 200, 4
EVERY_TIME = {torch.float64: 2, torch.float32: 1}
"""Parts that `make test` does; `make test-all` does all."""


def explicit_case(rng: random.Random, dtype: torch.dtype) -> Case:
    dim, dim_out, stride, kernel = rng.choice((3, 5)), rng.choice((2, 7)), rng.choice((1, 2)), rng.choice(FA.KERNELS)
    radius, downsample = 10 ** rng.uniform(-0.5, 1.5), rng.random() < 0.3
    module = ExplicitAttention2d(dim, dim_out, kernel=kernel, stride=stride, radius=radius, downsample=downsample)
    loops = partial(reference.explicit_module, kernel=kernel, stride=stride, downsample=downsample)
    return Case(shaken(module, rng, dtype), loops, random_map(rng, dim, dtype), f"{module}")


def expatt_conv_case(rng: random.Random, dtype: torch.dtype) -> Case:
    dim, dim_out, stride, kernel = rng.choice((3, 5)), rng.choice((7, 11)), rng.choice((1, 2)), rng.choice(FA.KERNELS)
    ratio, downsample = rng.uniform(0.2, 0.8), rng.random() < 0.2
    module = ExpAttConv2d(dim, dim_out, kernel=kernel, stride=stride, value_ratio=ratio, downsample=downsample)
    loops = partial(reference.expatt_conv, kernel=kernel, stride=stride, downsample=downsample)
    return Case(shaken(module, rng, dtype), loops, random_map(rng, dim, dtype), f"{module}")


def global_self_case(rng: random.Random, dtype: torch.dtype) -> Case:
    heads, dim, stride = rng.choice((1, 2, 3)), rng.choice((3, 5)), rng.choice((1, 2))
    dim_key, dim_out = heads * rng.choice((1, 2, 3)), heads * rng.choice((1, 2, 3))
    feat_size = (rng.randint(1, 8), rng.randint(1, 8))
    part = rng.choice(("both", "both", "both", "content", "positional", "columns", "rows"))
    changed = rng.choice((None, None, "normalize_queries", "axial_content")) if part in ("both", "content") else None
    module = GlobalSelfAttention2d(
        dim,
        dim_out,
        num_heads=heads,
        dim_key=dim_key,
        feat_size=feat_size,
        stride=stride,
        part=part,
        normalize_queries=changed == "normalize_queries",
        axial_content=changed == "axial_content",
        fused=rng.choice((None, False)),
    )
    x = random_map(rng, dim, dtype)
    training = rng.random() < 0.5 and x.shape[0] * x.shape[2] * x.shape[3] > 4
    module.train(training)
    loops = partial(
        reference.global_self_module,
        num_heads=heads,
        dim_key=dim_key,
        stride=stride,
        training=training,
        part=part,
        normalize_queries=changed == "normalize_queries",
        axial_content_too=changed == "axial_content",
    )
    return Case(shaken(module, rng, dtype), loops, x, f"{module}, {training=}, fused={module.fused}")


def augmented_case(rng: random.Random, dtype: torch.dtype) -> Case:
    heads, dim, stride, downsample = rng.choice((1, 2)), rng.choice((3, 5)), rng.choice((1, 2)), rng.random() < 0.3
    module = AttentionAugmentedConv2d(
        dim,
        heads * 5,
        num_heads=heads,
        stride=stride,
        feat_size=(rng.randint(1, 6), rng.randint(1, 6)),
        value_ratio=rng.choice((0.2, 0.6)),
        min_dim_key=rng.choice((1, 3)),
        downsample=downsample,
    )
    loops = partial(
        reference.augmented_conv, num_heads=heads, dim_key=module.dim_key, stride=stride, downsample=downsample
    )
    return Case(shaken(module, rng, dtype), loops, random_map(rng, dim, dtype), f"{module}")


def rectangular_case(rng: random.Random, dtype: torch.dtype) -> Case:
    dim, sharpness = rng.choice((3, 5)), rng.uniform(1, 10)
    module = RectangularAttention2d(dim, sharpness=sharpness, hidden=rng.choice((1, 2, 3)))
    loops = partial(reference.rectangular_module, sharpness=sharpness)
    return Case(shaken(module, rng, dtype), loops, random_map(rng, dim, dtype), f"{module}")


def positionwise_case(rng: random.Random, dtype: torch.dtype) -> Case:
    dim = rng.choice((3, 5))
    module = PositionwiseAttention2d(dim, hidden=rng.choice((1, 2, 3)))
    return Case(shaken(module, rng, dtype), reference.positionwise_module, random_map(rng, dim, dtype), f"{module}")


CASES: list[Callable[[random.Random, torch.dtype], Case]] = [
    explicit_case,
    expatt_conv_case,
    global_self_case,
    augmented_case,
    rectangular_case,
    positionwise_case,
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "part"),
    [
        # Float64 says whether it is right, in two parts both ways to apply a kernel; of what float32 adds, rounding,
        # the first part says enough every time.
        pytest.param(dtype, part, marks=[] if part < EVERY_TIME[dtype] else pytest.mark.exhaustive)
        for dtype in TOLERANCE
        for part in range(PARTS)
    ],
    ids=str,
)
@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_values_and_gradients(make, dtype, part, monkeypatch):
    for index in range(part, CONFIGURATIONS, PARTS):
        rng = random.Random(f"{make.__name__}-{index}")
        torch.manual_seed(index)
        # Both ways to apply a kernel that does not factorise, at sizes that loops can follow.
        monkeypatch.setattr(explicit_file, "DENSE_MAX_POSITIONS", 576 * (index % 2))
        case = make(rng, dtype)
        found = errors(case)
        worst = max(found, key=found.__getitem__)
        assert found[worst] <= TOLERANCE[dtype], (
            f"configuration {index}: {worst} is off by {found[worst]:.1e}\n{case.label}\nx: {tuple(case.x.shape)}"
        )
