"""A random order of images that reads a few shards at a time, each from near its beginning to its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

__all__ = ["LANES", "ShardOrder"]

LANES = 16
"""Shards that are read at the same time, and so that a batch is drawn from."""
CHUNK = 4096


class ShardOrder:
    """The order of the images of one epoch: a permutation of them, a function of the seed and the epoch alone.

    The shards are shuffled, laid end to end, and cut into ``lanes`` stretches that are equally long to one image.
    Within a shard the images are shuffled. The order takes one image of each stretch in turn. So at any time one shard
    in each stretch is being read; and of ``world_size`` ranks that deal the order out among them, where ``world_size``
    divides ``lanes``, each keeps to stretches of its own and reads no shard of another, but for those that a cut goes
    through.

    The order depends neither on the number of ranks nor on that of workers: an epoch can be continued by other numbers
    of them. It is computed where it is asked for, and never held: a position costs the same in a set of any size.

    Args:
        sizes: The number of images in each shard.
        seed: Seed of the order.
        epoch: The epoch, from 0.
        lanes: The most stretches; there are never more than shards.
    """

    def __init__(self, sizes: Sequence[int], *, seed: int, epoch: int, lanes: int = LANES) -> None:
        self._key = [seed, epoch]
        self._sizes = np.asarray(sizes, dtype=np.int64)
        self._firsts = np.cumsum(self._sizes) - self._sizes
        self._shards = np.random.default_rng(self._key).permutation(len(self._sizes))
        self._ends = np.cumsum(self._sizes[self._shards])
        self._lanes = min(lanes, len(self._sizes))

    def at(self, positions: range) -> Iterator[int]:
        """Yield the numbers of the images at ``positions`` of the order."""
        permutations: dict[int, np.ndarray] = {}
        for start in range(0, len(positions), CHUNK):
            chunk = positions[start : start + CHUNK]
            shards, places = self._shuffled(np.arange(chunk.start, chunk.stop, chunk.step, dtype=np.int64))
            permutations = {
                shard: permutations[shard] if shard in permutations else self._permutation(shard)
                for shard in np.unique(shards).tolist()
            }
            yield from (
                int(permutations[shard][place]) for shard, place in zip(shards.tolist(), places.tolist(), strict=True)
            )

    def _shuffled(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the shard of each position, and the place in the shuffled shard."""
        whole, longer = divmod(int(self._ends[-1]), self._lanes)  # the first ``longer`` stretches have one image more
        step, lane = np.divmod(positions, self._lanes)
        along = lane * whole + np.minimum(lane, longer) + step
        turn = np.searchsorted(self._ends, along, side="right")
        shards = self._shards[turn]
        return shards, along - (self._ends[turn] - self._sizes[shards])

    def _permutation(self, shard: int) -> np.ndarray:
        """Return the numbers of the shard's images in the order of this epoch."""
        # A key of three numbers would be that of the shards' order where the third is 0.
        sequence = np.random.SeedSequence(self._key, spawn_key=(shard,))
        return self._firsts[shard] + np.random.default_rng(sequence).permutation(self._sizes[shard])
