"""What a part of the suite does and reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

SHOWN = 20
"""Failures that are listed; all are counted."""


@dataclass(kw_only=True)
class Outcome:
    """What came out of one part.

    Attributes:
        trials: How many were made.
        counts: How often what happened.
        rows: A table of figures, each row with the same columns.
        failures: What broke a bound, one line each; none, if all is well.
        notes: Sentences that a reader of the figures needs.
    """

    trials: int
    counts: dict[str, int] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def count(self, what: str, number: int = 1) -> None:
        """Add to a count."""
        self.counts[what] = self.counts.get(what, 0) + number

    def check(self, passed: bool, failure: str) -> None:
        """Note ``failure`` unless it ``passed``."""
        if not passed:
            self.failures.append(failure)

    def as_dict(self) -> dict[str, Any]:
        """Return what the JSON of a part holds, with only so many failures listed."""
        return {**dataclasses.asdict(self), "failed": len(self.failures), "failures": self.failures[:SHOWN]}


@dataclass(frozen=True)
class Part:
    """One part of the suite.

    Attributes:
        run: Makes so many trials from a seed.
        trials: How many in the full suite.
        short: How many in `make test`; 0 if the part has tests of its own there.
        summary: What is tried, and what must come out.
    """

    run: Callable[[int, int], Outcome]
    trials: int
    short: int
    summary: str


def progress(items: Iterable[Any], name: str) -> Iterable[Any]:
    """Yield ``items`` with a bar on a terminal."""
    return tqdm(items, desc=name, disable=None, leave=False)


def to_markdown(rows: list[Mapping[str, Any]]) -> str:
    """Return a table."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
    return "\n".join(lines + ["| " + " | ".join(map(_cell, row.values())) + " |" for row in rows])


def _cell(value: Any) -> str:
    return f"{value:.1e}" if isinstance(value, float) else str(value)
