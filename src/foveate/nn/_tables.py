"""The two relative tables of a module that attends along both axes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from foveate._checks import pair
from foveate.functional.relative import resize_relative_table
from foveate.nn._scripting import NotScriptable

__all__ = ["RelativeTables2d"]


class RelativeTables2d(NotScriptable, nn.Module):
    """Base of the modules that hold a table of vertical and one of horizontal offsets.

    Attributes:
        qkv: The projection of the map that is attended to.
        feat_size: Extents ``(L_H, L_W)`` of the tables.
        rel_height: ``(2·L_H − 1, d)``.
        rel_width: ``(2·L_W − 1, d)``.
    """

    qkv: nn.Conv2d
    feat_size: tuple[int, int]
    rel_height: nn.Parameter
    rel_width: nn.Parameter

    def make_tables(self, feat_size: int | tuple[int, int], dim: int, **factory: Any) -> None:
        """Make tables of vectors of ``dim`` entries, their values not set yet."""
        self.feat_size = pair("feat_size", feat_size)
        self.rel_height = nn.Parameter(torch.empty(2 * self.feat_size[0] - 1, dim, **factory))
        self.rel_width = nn.Parameter(torch.empty(2 * self.feat_size[1] - 1, dim, **factory))

    def resize(self, feat_size: int | tuple[int, int]) -> None:
        """Stretch the tables, by linear interpolation, to those of another ``feat_size``."""
        self.feat_size = pair("feat_size", feat_size)
        with torch.no_grad():
            self.rel_height = nn.Parameter(resize_relative_table(self.rel_height, self.feat_size[0]))
            self.rel_width = nn.Parameter(resize_relative_table(self.rel_width, self.feat_size[1]))
