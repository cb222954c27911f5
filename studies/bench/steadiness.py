"""Whether the rounds of a case were quiet enough to tell its entries apart: the base against itself says what that is.

The case's first subject is entered twice. What the ratio of the two strays from one, in the quartiles of the rounds, is
the noise floor: with other work on the cores it grows, and so does the scatter of every other ratio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from foveate.benchmark import Quartiles, paired_ratios

__all__ = ["noise", "unsteady"]

FACTOR = 2.0
"""An entry may scatter so many times as much as the base against itself: two different calls share less."""


def noise(ratio: Quartiles) -> float:
    """Return by how much the quartiles of a ratio stray from its median, relative to that."""
    return max(ratio.q3 - ratio.median, ratio.median - ratio.q1) / ratio.median


def unsteady(
    seconds: Mapping[int, Sequence[float]], base: int, again: int | None, *, max_noise: float
) -> dict[int, float]:
    """Return the entries that are noisier than they may be, and how many times as noisy.

    The base and its second entry may stray from each other by ``max_noise``; where they stray by more, no entry is
    steady. The ratio of another entry may scatter by `FACTOR` times what they stray, or by ``max_noise``.

    Args:
        seconds: Of each entry, round by round.
        base: The entry that the others are compared with.
        again: The same entered a second time; None where it could not be, and so tells nothing.
        max_noise: As a share of the time.
    """
    floor = 0.0
    if again is not None:
        itself = paired_ratios(seconds[again], seconds[base])
        floor = max(abs(itself.q1 - 1), abs(itself.q3 - 1))
    allowed = max(max_noise, FACTOR * floor)
    found = dict.fromkeys(seconds, floor / max_noise)
    for entry in seconds.keys() - {base, again}:
        found[entry] = max(found[entry], noise(paired_ratios(seconds[entry], seconds[base])) / allowed)
    return {entry: excess for entry, excess in found.items() if excess > 1}
