"""Compiled networks at many sizes: the same numbers, from code that was compiled at most twice."""

from __future__ import annotations

import random

import timm
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import foveate  # noqa: F401  # registers the networks
from tests.comparison import relative_error
from tests.fuzz.outcome import Outcome, progress

NETWORKS = [f"{family}_resnet_tiny" for family in ("conv", "expatt", "gsa", "aa", "cram", "positionwise")]
BOUND = 1e-5
SIDES = (17, 96)
FULL = 30


def run(trials: int, seed: int) -> Outcome:
    """Compile every family and compare it with itself uncompiled at ``trials`` sizes; of few, trace one family only."""
    backend, networks = ("inductor", NETWORKS) if trials >= FULL else ("eager", NETWORKS[2:3])
    outcome = Outcome(trials=trials * len(networks))
    for name in progress(networks, "compile"):
        torch.manual_seed(seed)
        sized = {"img_size": SIDES[1]} if name.startswith(("gsa", "aa")) else {}
        network = timm.create_model(name, num_classes=10, **sized)
        network.eval()
        torch.compiler.reset()
        counter = CompileCounterWithBackend(backend)
        compiled = torch.compile(network, backend=counter, fullgraph=True)
        rng = random.Random(f"{seed}-{name}")
        worst = 0.0
        with torch.no_grad():
            for index in range(trials):
                x = torch.randn(2 + index % 4, 3, *_size(rng, index))
                worst = max(worst, relative_error(compiled(x), network(x)))
        outcome.rows.append({"network": name, "compilations": counter.frame_count, "worst error": f"{worst:.1e}"})
        if counter.frame_count > 2:
            outcome.failures.append(f"{name} was compiled {counter.frame_count} times")
        if not worst <= BOUND:
            outcome.failures.append(f"{name} is off by {worst:.1e}")
    outcome.notes.append(
        f"Batches of 2 to 5, height and width from {SIDES[0]} to {SIDES[1]}, for which GSA and AA were built; "
        f"the compiler is {backend}, the bound {BOUND:g}."
    )
    return outcome


def _size(rng: random.Random, index: int) -> tuple[int, int]:
    """Return a height and a width; of the first two both differ, by which the compiler sees that either may."""
    half = (SIDES[0] + SIDES[1]) // 2
    low, high = [(SIDES[0], half), (half + 1, SIDES[1])][index] if index < 2 else SIDES
    return rng.randint(low, high), rng.randint(low, high)
