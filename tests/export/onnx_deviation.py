"""How far networks in ONNX agree with themselves in PyTorch: run by the suite of faults, at length."""

from __future__ import annotations

import random

import torch

import foveate
from foveate.export import TOLERANCE, deviation, export_program, onnx_model, run_onnx, smallest_side
from tests.export.networks import SIDE, TINY, network
from tests.fuzz.outcome import Outcome, progress

REAL_SIDE = 128
NETWORKS = {
    **{f"{family}_resnet_tiny": SIDE for family in TINY},
    **{f"{family}_resnet26": REAL_SIDE for family in TINY},
    "cram_efficientnet_b0": REAL_SIDE,
    "positionwise_mobilenetv3_large_100": REAL_SIDE,
    "regnety_002+cram": REAL_SIDE,
}
"""Every family in its tiny and in a real size, and inserted modules, with the size that each is made for."""
IMAGES_AT_A_SIZE = 50


def run(trials: int, seed: int, networks: dict[str, int] = NETWORKS) -> Outcome:
    """Export each network to ONNX once, and compare it at ``trials`` other sizes, on 50 images of each on average."""
    outcome = Outcome(trials=trials * len(networks))
    for name, side in progress(networks.items(), "onnx"):
        outcome.rows.append(compare(name, side, sizes=trials, images=trials * IMAGES_AT_A_SIZE, seed=seed))
        row = outcome.rows[-1]
        outcome.count("networks")
        if not row["relative error"] <= TOLERANCE:
            outcome.failures.append(f"{name}: relative error {row['relative error']:.1e} at {row['worst at']}")
        if row["same top-1"] != row["images"]:
            outcome.failures.append(f"{name}: top-1 differs on {row['images'] - row['same top-1']} images")
    return outcome


def compare(name: str, side: int, *, sizes: int, images: int, seed: int) -> dict[str, object]:
    """Compare one network at random sizes from the smallest that it takes to twice its own; return a row of figures."""
    model = network(name, side)
    program = export_program(model, (3, side, side))
    smallest = smallest_side(program, 3)
    other = run_onnx(onnx_model(program, {}))
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    found = []
    for index in range(sizes):
        height, width = rng.randint(smallest, 2 * side), rng.randint(smallest, 2 * side - 1)
        left = images * (index + 1) // sizes - images * index // sizes
        while left:  # batches of different sizes, the last as large as it comes
            batch = min(left, rng.randint(1, 16))
            found.append(deviation(model, other, torch.randn(batch, 3, height, width, generator=generator)))
            left -= batch
    worst = max(found, key=lambda each: each.error)
    return {
        "network": name,
        "smallest side": smallest,
        "sizes": sizes,
        "images": images,
        "same top-1": sum(each.same_top1 for each in found),
        "relative error": worst.error,
        "worst at": "×".join(map(str, worst.shape)),
    }


assert {name.partition("_")[0] for name in NETWORKS if "+" not in name} == {
    name.partition("_")[0] for name in foveate.models.registered()
}  # a new family is to be added here
