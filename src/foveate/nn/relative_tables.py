"""Relative tables of modules that attend along both axes."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from foveate._checks import pair
from foveate.functional.relative import resize_relative_table
from foveate.nn._scripting import NotScriptable
from foveate.nn.spatial_attention import PairwiseAttention

__all__ = ["TABLES", "RelativeTables2d"]

TABLES = ("rel_height", "rel_width")


class RelativeTables2d(NotScriptable, PairwiseAttention):
    """Base class of modules with one table of vertical and one of horizontal offsets.

    Attributes:
        qkv: Projection of the attended map.
        feat_size: Extents ``(L_H, L_W)`` of the tables.
        rel_height: ``(2·L_H − 1, d)``.
        rel_width: ``(2·L_W − 1, d)``.
    """

    qkv: nn.Conv2d
    feat_size: tuple[int, int]
    rel_height: nn.Parameter
    rel_width: nn.Parameter

    def make_tables(self, feat_size: int | tuple[int, int], dim: int, **factory: Any) -> None:
        """Create uninitialized tables of vectors of ``dim`` entries."""
        self.feat_size = pair("feat_size", feat_size)
        self.rel_height = nn.Parameter(torch.empty(2 * self.feat_size[0] - 1, dim, **factory))
        self.rel_width = nn.Parameter(torch.empty(2 * self.feat_size[1] - 1, dim, **factory))

    def map_parameters(self) -> dict[str, slice]:
        """Name the tables."""
        return dict.fromkeys(TABLES, slice(None))

    def no_weight_decay(self) -> set[str]:
        """Name the tables: decay would pull positions towards not mattering."""
        return {name for name in TABLES if hasattr(self, name)}

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """Stretch tables that were trained for another size of the map, with a warning."""
        for name in TABLES:
            loaded, own = state_dict.get(prefix + name), getattr(self, name, None)
            if loaded is None or own is None or loaded.ndim != 2 or loaded.shape[1] != own.shape[1]:
                continue  # missing, or of another network: the caller says so
            if len(loaded) != len(own) and len(loaded) % 2:
                state_dict[prefix + name] = resize_relative_table(loaded, (len(own) + 1) // 2)
                warnings.warn(
                    f"relative tables for maps of {(len(loaded) + 1) // 2} positions are stretched to "
                    f"{(len(own) + 1) // 2}, by linear interpolation",
                    stacklevel=2,
                )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def resize(self, feat_size: int | tuple[int, int]) -> None:
        """Stretch the tables to another ``feat_size`` by linear interpolation."""
        self.feat_size = pair("feat_size", feat_size)
        with torch.no_grad():
            self.rel_height = nn.Parameter(resize_relative_table(self.rel_height, self.feat_size[0]))
            self.rel_width = nn.Parameter(resize_relative_table(self.rel_width, self.feat_size[1]))
