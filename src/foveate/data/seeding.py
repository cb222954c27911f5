"""Random draws that depend on nothing but a key.

timm's and torchvision's augmentations draw from Python's, numpy's and torch's global generators. Seeding all three for
each image makes an augmented image a pure function of its key, whichever process makes it and whatever came before.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["generators_kept", "seed_generators"]


@contextmanager
def generators_kept() -> Iterator[None]:
    """Put back the states of Python's, numpy's and torch's CPU generators when the block ends."""
    # The global numpy generator is the one that timm draws from, hence numpy's old interface.
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


def seed_generators(*key: int) -> None:
    """Seed Python's, numpy's and torch's CPU generators from ``key``.

    Args:
        key: Integers of at least 0, such as ``(seed, epoch, index)``. Each tuple gives an independent stream.
    """
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach the accelerators as well
