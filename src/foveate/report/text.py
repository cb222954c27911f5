"""Plain text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["WIDTH", "columns", "markdown"]

WIDTH = 118
"""To which running text is broken."""


def columns(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Align ``rows`` under ``header``: the first ``left`` columns to the left, the others, figures, to the right."""
    table = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    )
    return "\n".join(lines)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Return a Markdown table, padded so that it reads well in a terminal; columns as in `columns`."""
    widths = [max(3, *map(len, column)) for column in zip(header, *rows, strict=True)]  # room for a rule of "-:"
    rule = ["-" * (width - (index >= left)) + ":" * (index >= left) for index, width in enumerate(widths)]
    return "\n".join(
        "| "
        + " | ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in (header, rule, *rows)
    )
