"""Other work on the cores during a measurement: other processes, and other guests of the same machine."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from foveate.benchmark.machine import cores

__all__ = ["OtherWork", "OtherWorkWatch"]

STAT = Path("/proc/stat")
USER, NICE, SYSTEM, IDLE, IOWAIT, IRQ, SOFTIRQ, STEAL = range(8)
"""Columns of `STAT`; the two behind, of virtual guests, are counted in the first two already."""
BUSY = (USER, NICE, SYSTEM, IRQ, SOFTIRQ)


@dataclass(frozen=True)
class OtherWork:
    """Other work on the cores that this process may use, as shares of all their time."""

    processes: float
    """Share of other processes."""
    stolen: float
    """Share of other guests of the machine under this virtual one."""

    @property
    def share(self) -> float:
        """Sum of both."""
        return self.processes + self.stolen


class OtherWorkWatch:
    """Other work on the cores from the construction of this object on.

    On Linux the kernel counts it, in hundredths of a second: all that ran on the cores of this process, less what the
    process and its children ran themselves. Elsewhere it is the load average, less the cores that the process kept
    busy: that lags by a minute, and knows of no other guests. Without either it is unknown.

    Examples:
        >>> watch = OtherWorkWatch()
        >>> found = watch.since()
        >>> found is None or 0 <= found.share <= 1
        True
    """

    def __init__(self) -> None:
        self._began, self._own = time.monotonic(), _own_seconds()
        self._counted = _counted()

    def since(self) -> OtherWork | None:
        """Return the other work until now; None where the system does not tell."""
        own = _own_seconds() - self._own
        now = _counted()
        if self._counted is not None and now is not None:
            busy, stolen, total = (b - a for a, b in zip(self._counted, now, strict=True))
            return OtherWork(_share(busy - own, total), _share(stolen, total))
        if not hasattr(os, "getloadavg"):
            return None
        elapsed = time.monotonic() - self._began
        return OtherWork(_share(os.getloadavg()[0] * elapsed - own, elapsed * cores()), 0.0)


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _share(part: float, whole: float) -> float:
    return min(1.0, max(0.0, part / whole)) if whole > 0 else 0.0


def _counted() -> tuple[float, float, float] | None:
    """Return the seconds that the cores of this process were busy, stolen, and in all; None if unknown."""
    try:
        lines = STAT.read_text(encoding="ascii").splitlines()
        allowed = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        rows = [list(map(int, line.split()[1:9])) for line in lines if line.partition(" ")[0] in allowed]
        tick = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None
    if not rows or any(len(row) != 8 for row in rows):
        return None
    busy = sum(row[column] for row in rows for column in BUSY)
    return busy / tick, sum(row[STEAL] for row in rows) / tick, sum(map(sum, rows)) / tick
