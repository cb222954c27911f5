"""Global self-attention (GSA), a drop-in for a 3×3 convolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from foveate._checks import feature_map, integer, one_of
from foveate._shapes import Float
from foveate.functional._layout import in_layout_of, to_channels_last
from foveate.functional._pooling import block_average_pool
from foveate.functional._precision import not_float16
from foveate.functional.axial_content import axial_content_attention, axial_content_map
from foveate.functional.global_self import (
    axial_positional_attention,
    axial_positional_map,
    content_attention,
    content_attention_map,
    global_positional_map,
)
from foveate.nn._global_self_fused import attend_fused
from foveate.nn._global_self_weights import AxialWeights, GlobalSelfWeights, axial_map, gain_and_shift, normalized
from foveate.nn._heads import divisible, merge_heads, split_heads
from foveate.nn.relative_tables import TABLES, RelativeTables2d, warn_if_larger
from foveate.nn.weights import PARTS, PairwiseWeights

__all__ = ["GlobalSelfAttention2d"]

TABLES_OF = {
    "both": TABLES,
    "content": (),
    "positional": TABLES,
    "columns": ("rel_height",),
    "rows": ("rel_width",),
}
"""Tables of each choice of parts, in the order of the passes."""


class GlobalSelfAttention2d(RelativeTables2d):
    """Global self-attention: content attention plus axial positional attention.

        Q (ρ(Kᵀ) V)  +  row_pass(norm(column_pass(V)))

    with ``ρ`` the softmax of each key channel over all positions, and passes that weigh a value at offset ``δ`` by
    ``q · r_δ``; see `foveate.functional.content_attention` and `foveate.functional.axial_positional_attention`.
    Queries, keys and values are 1×1 convolutions without bias; there is no output projection. The relative
    embeddings are shared by the heads. Memory is linear in the positions, and so is the time of the content; that of
    the positional passes is ``N(H + W)``. No N×N map is formed, and no scores are kept but by `plain_operators`.

    Offsets that the tables do not hold do not attend: on a map larger than ``feat_size`` the positional attention
    is a window of ``2L − 1`` pixels along each axis, while content attention stays global. `resize` fits the
    tables to another size.

    Source: Shen et al. 2020 (arXiv 2010.03019); docs/gsa.md lists what is known of it.

    Args:
        dim: Channels of the input.
        dim_out: Channels of the values and of the output; ``dim`` by default.
        num_heads: Number of heads; must divide ``dim_key`` and ``dim_out``.
        dim_key: Channels of queries and keys; ``dim`` by default.
        feat_size: Size of the feature map at the training resolution, before the stride: the extent ``L`` or
            ``(L_H, L_W)`` of the tables.
        stride: 1, or the window of an average pooling that follows the attention (2 halves each side, rounded up).
        part: ``both``, or for ablations ``content`` (no tables, no normalization), ``positional`` (no keys),
            ``columns`` or ``rows`` (no keys, a single pass and no normalization).
        normalize_queries: For an ablation: softmax of the channels of each query in the content part.
        axial_content: For an ablation: take the content along the axes as well, by
            `foveate.functional.axial_content_attention`.
        fused: As in `foveate.functional.content_attention`: None takes fused kernels where there are any.
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Examples:
        >>> module = foveate.nn.GlobalSelfAttention2d(8, 16, num_heads=4, feat_size=(5, 7))
        >>> x = torch.randn(2, 8, 5, 7)
        >>> module(x).shape, module.attention_map(x).shape
        (torch.Size([2, 16, 5, 7]), torch.Size([2, 4, 35, 35]))
    """

    title = "GSA: attention of each position to all"
    description = "Each position takes from all others, for what is there (content) and for where it is (position)."

    norm: nn.Module

    def __init__(
        self,
        dim: int,
        dim_out: int | None = None,
        *,
        num_heads: int = 8,
        dim_key: int | None = None,
        feat_size: int | tuple[int, int],
        stride: int = 1,
        part: str = "both",
        normalize_queries: bool = False,
        axial_content: bool = False,
        fused: bool | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.dim = integer("dim", dim)
        self.num_heads = integer("num_heads", num_heads)
        self.dim_out = divisible("dim_out", dim if dim_out is None else dim_out, num_heads)
        self.dim_key = divisible("dim_key", dim if dim_key is None else dim_key, num_heads)
        self.stride = integer("stride", stride)
        self.part = one_of("part", part, TABLES_OF)
        self.normalize_queries, self.axial_content = bool(normalize_queries), bool(axial_content)
        if self.normalize_queries + self.axial_content > self._has_content:
            raise ValueError(
                "normalize_queries and axial_content change the content one way or the other: leave out one of them, "
                f"or both where there is no content; got part={part}"
            )
        if fused and part == "content" and self.axial_content:
            raise ValueError("axial_content alone has no fused kernels; leave out fused=True")
        self.fused = fused
        self.widths = (self.dim_key, self.dim_key if self._has_content else 0, self.dim_out)
        self.qkv = nn.Conv2d(dim, sum(self.widths), 1, bias=False, **dd)
        if len(TABLES_OF[part]) == 2:  # between the passes
            self.norm = nn.BatchNorm2d(self.dim_out, **dd)
        self.make_tables(feat_size, self.dim_key // num_heads, TABLES_OF[part], **dd)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the projections (variance-preserving) and the tables, and reset the normalization.

        The tables' deviation ``(d·L)^−½`` gives the sum over a line of ``L`` offsets the variance of one value.
        """
        nn.init.kaiming_normal_(self.qkv.weight, nonlinearity="linear")
        for name, extent in self._extents().items():
            table = getattr(self, name)
            nn.init.normal_(table, std=(table.shape[1] * extent) ** -0.5)
        if reset := getattr(getattr(self, "norm", None), "reset_parameters", None):  # it may have been replaced
            reset()

    def fitted(self, table: Float[Tensor, "offsets dim"], extent: int) -> Float[Tensor, "{2*extent-1} dim"]:
        """Return a table of another extent, times old / new extent: a pass sums over so many times as many values."""
        return super().fitted(table, extent) * ((len(table) + 1) // 2 / extent)

    @property
    def _has_content(self) -> bool:
        return self.part in ("both", "content")

    def project(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch heads rows columns _"], ...]:
        """Return queries, keys and values, in the memory order of heads.

        Without a content part the keys have no channels. Where autocast makes the projection float16, the three are
        float32: their products would leave float16's range.
        """
        return split_heads(self._projection(x), self.widths, self.num_heads)

    def _projection(self, x: Tensor) -> Tensor:
        feature_map(x, self.dim, "GlobalSelfAttention2d")
        warn_if_larger(x, self._extents())
        return not_float16(to_channels_last(self.qkv(x)))

    def values(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch heads positions dim_head"]:
        """Return the values that the maps weigh."""
        return self.project(x)[2].flatten(2, 3)

    def attention_map(
        self, x: Float[Tensor, "batch channels height width"], part: str = "both"
    ) -> Float[Tensor, "batch heads positions positions"]:
        """Return signed weights: what each position takes from each position.

        ``part`` is ``content``, ``positional`` or ``both``, the sum of those that the module has. The positional map is
        that of the two passes without the normalization between them (`forward_by_maps` has it).
        """
        one_of("part", part, PARTS if self.part == "both" else ("both", self.part))
        query, key, _ = self.project(x)
        maps = []
        if self._has_content and part != "positional":
            maps.append(self._content_map(query, key))
        if self.tables and part != "content":
            maps.append(self._positional_map(query))
        return sum(maps[1:], maps[0])

    def _content_map(self, query: Tensor, key: Tensor) -> Tensor:
        if self.axial_content:
            return axial_content_map(query, key)
        return content_attention_map(query, key, normalize_queries=self.normalize_queries)

    def _positional_map(self, query: Tensor) -> Tensor:
        if len(self.tables) == 2:
            return global_positional_map(query, self.rel_width, self.rel_height)
        return axial_map(query, getattr(self, self.tables[0]), TABLES.index(self.tables[0])).flatten(4).flatten(2, 3)

    def forward_by_maps(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch dim_out rows columns"]:
        """Compute the output with the maps formed, ``content_map V + row_map norm(column_map V)``; for small maps only.

        A training-mode normalization uses the batch's statistics and leaves its running ones alone.
        """
        query, _, value = self.project(x)
        terms = []
        if self._has_content:
            attended = self.attention_map(x, "content").to(value.dtype) @ value.flatten(2, 3)
            terms.append(attended.view(value.shape))
        if self.tables:
            terms.append(self._positional_by_maps(query, value))
        return self._pool(in_layout_of(x, merge_heads(sum(terms[1:], terms[0]))))

    def _positional_by_maps(self, query: Tensor, value: Tensor) -> Tensor:
        hidden = value
        for name in self.tables:
            axis = TABLES.index(name)
            scores = axial_positional_map(query, getattr(self, name), axis).to(value.dtype)
            if name != self.tables[0]:
                hidden = normalized(self.norm, merge_heads(hidden))
                (hidden,) = split_heads(hidden, (self.dim_out,), self.num_heads)
            hidden = torch.einsum(("bhyxk,bhkxd->bhyxd", "bhyxk,bhykd->bhyxd")[axis], scores, hidden)
        return hidden

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch dim_out rows columns"]:
        """Attend; a stride divides height and width, rounded up."""
        return self._forward(x, self.part)

    def _forward(self, x: Tensor, part: str) -> Tensor:
        qkv = self._projection(x)
        if part == "both" and (found := attend_fused(self, qkv)) is not None:
            out, pooled = found
            return in_layout_of(x, out) if pooled else self._pool(in_layout_of(x, out))
        query, key, value = split_heads(qkv, self.widths, self.num_heads)
        # Content first: its backward pass comes last, when what the positional passes saved is free again.
        terms = []
        if part in ("both", "content"):
            terms.append(self._content(query, key, value))
        if part != "content":
            terms.append(self._positional(query, value))
        return self._pool(in_layout_of(x, merge_heads(sum(terms[1:], terms[0]))))

    def _content(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if self.axial_content:
            return axial_content_attention(query, key, value)
        return content_attention(query, key, value, normalize_queries=self.normalize_queries, fused=self.fused)

    def _positional(self, query: Tensor, value: Tensor) -> Tensor:
        hidden = value
        for name in self.tables:
            if name != self.tables[0]:
                (hidden,) = split_heads(self.norm(merge_heads(hidden)), (self.dim_out,), self.num_heads)
            table = getattr(self, name)
            hidden = axial_positional_attention(query, hidden, table, TABLES.index(name), fused=self.fused)
        return hidden

    def _pool(self, x: Tensor) -> Tensor:
        return x if self.stride == 1 else block_average_pool(x, self.stride)

    @property
    def parts(self) -> tuple[str, ...]:
        """The two parts, each of which can be switched off; a module has no output without its only one."""
        return ("content", "positional") if self.part == "both" else ()

    def forward_without(
        self, x: Float[Tensor, "batch channels height width"], part: str = "content"
    ) -> Float[Tensor, "batch dim_out rows columns"]:
        """Compute the output of the other part alone."""
        one_of("part", part, self.parts)
        return self._forward(x, "positional" if part == "content" else "content")

    def weights(self, x: Float[Tensor, "batch channels height width"]) -> PairwiseWeights:
        """Return the weights, including the gain of the normalization between the passes."""
        query, key, value = self.project(x)
        if len(self.tables) == 1:
            return AxialWeights(query, value, getattr(self, self.tables[0]), TABLES.index(self.tables[0]))
        tables = normalization = None
        if self.tables:
            column = merge_heads(axial_positional_attention(query, value, self.rel_height, 0, fused=self.fused))
            tables, normalization = (self.rel_height, self.rel_width), gain_and_shift(self.norm, column)
        how = {"normalize_queries": self.normalize_queries, "axial_content": self.axial_content}
        return GlobalSelfWeights(query, key, value, self.part, tables, normalization, **how)

    def map_parameters(self) -> dict[str, slice]:
        """Name queries, keys and tables."""
        return super().map_parameters() | {"qkv.weight": slice(sum(self.widths) - self.dim_out)}

    def extra_repr(self) -> str:
        """Describe the module."""
        changed = {name: getattr(self, name) for name in ("part", "normalize_queries", "axial_content")}
        ablation = "".join(f", {name}={value}" for name, value in changed.items() if value not in ("both", False))
        return (
            f"{self.dim}, {self.dim_out}, num_heads={self.num_heads}, dim_key={self.dim_key}, "
            f"feat_size={self.feat_size}, stride={self.stride}{ablation}"
        )


# Symbolic tracing keeps these whole: they look at shapes and dtypes.
for _name in ("feature_map", "split_heads", "merge_heads", "in_layout_of", "to_channels_last", "not_float16"):
    torch.fx.wrap(_name)
for _name in ("warn_if_larger", "content_attention", "axial_content_attention", "axial_positional_attention"):
    torch.fx.wrap(_name)
