"""Relative tables of modules that attend along both axes."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from foveate._checks import pair
from foveate._shapes import Float
from foveate.functional.relative import resize_relative_table
from foveate.nn._scripting import NotScriptable
from foveate.nn.spatial_attention import PairwiseAttention

__all__ = ["TABLES", "RelativeTables2d", "warn_if_larger"]

TABLES = ("rel_height", "rel_width")


class RelativeTables2d(NotScriptable, PairwiseAttention):
    """Base class of modules with one table of vertical and one of horizontal offsets, or with one of the two or none.

    Attributes:
        qkv: Projection of the attended map.
        feat_size: Extents ``(L_H, L_W)`` of the tables.
        rel_height: ``(2·L_H − 1, d)``.
        rel_width: ``(2·L_W − 1, d)``.
        tables: Names of those that the module has.
    """

    qkv: nn.Conv2d
    feat_size: tuple[int, int]
    rel_height: nn.Parameter
    rel_width: nn.Parameter
    tables: tuple[str, ...]

    def make_tables(
        self, feat_size: int | tuple[int, int], dim: int, names: tuple[str, ...] = TABLES, **factory: Any
    ) -> None:
        """Create uninitialized tables of vectors of ``dim`` entries."""
        self.feat_size, self.tables = pair("feat_size", feat_size), names
        for name, extent in self._extents().items():
            setattr(self, name, nn.Parameter(torch.empty(2 * extent - 1, dim, **factory)))

    def _extents(self) -> dict[str, int]:
        """Return the extent of each table."""
        return {name: self.feat_size[TABLES.index(name)] for name in self.tables}

    def map_parameters(self) -> dict[str, slice]:
        """Name the tables."""
        return dict.fromkeys(self.tables, slice(None))

    def no_weight_decay(self) -> set[str]:
        """Name the tables: decay would pull positions towards not mattering."""
        return set(self.tables)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """Stretch tables that were trained for another size of the map, with a warning."""
        for name in self.tables:
            loaded, own = state_dict.get(prefix + name), getattr(self, name)
            if loaded is None or loaded.ndim != 2 or loaded.shape[1] != own.shape[1]:
                continue  # missing, or of another network: the caller says so
            if len(loaded) != len(own) and len(loaded) % 2:
                state_dict[prefix + name] = self.fitted(loaded, (len(own) + 1) // 2)
                warnings.warn(
                    f"relative tables for maps of {(len(loaded) + 1) // 2} positions are stretched to "
                    f"{(len(own) + 1) // 2}, by linear interpolation",
                    stacklevel=2,
                )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def fitted(self, table: Float[Tensor, "offsets dim"], extent: int) -> Float[Tensor, "{2*extent-1} dim"]:
        """Return a table of another extent, stretched to ``extent`` by linear interpolation."""
        return resize_relative_table(table, extent)

    def resize(self, feat_size: int | tuple[int, int]) -> None:
        """Fit the tables to another ``feat_size``, see `fitted`; they are new parameters."""
        self.feat_size = pair("feat_size", feat_size)
        with torch.inference_mode(False), torch.no_grad():
            for name, extent in self._extents().items():
                table = getattr(self, name)
                resized = self.fitted(table, extent)
                setattr(self, name, nn.Parameter(resized, requires_grad=table.requires_grad))


def warn_if_larger(x: Tensor, extents: dict[str, int]) -> None:
    """Warn that far positions of ``x`` do not see each other; Python shows it once for each size of tables."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    if any(x.shape[2 + TABLES.index(name)] > extent for name, extent in extents.items()):
        sides = "×".join(str(extent) for extent in extents.values())
        window = "×".join(str(2 * extent - 1) for extent in extents.values())
        warnings.warn(
            f"a map is larger than the relative tables of GlobalSelfAttention2d, which are for {sides}: its positional "
            f"attention is a window of {window} positions around each; "
            "foveate.resize_relative_tables(model, img_size) stretches the tables",
            stacklevel=2,
        )
