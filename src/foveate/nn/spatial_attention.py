"""What all attention modules have in common: the one class that everything outside `foveate.nn` asks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from foveate._shapes import FeatureMap, Float
from foveate.functional.similarity import visible, warp
from foveate.nn.weights import FormedWeights, PairwiseWeights

__all__ = ["GatedAttention", "Observation", "PairwiseAttention", "SpatialAttention", "mean_where"]


@dataclass(frozen=True, eq=False)
class Observation:
    """What an attention module attends to in one batch of inputs, detached and on the CPU.

    It has either a ``gate`` (one value per position) or ``weights`` (one value per pair of positions).

    Examples:
        >>> module = foveate.nn.RectangularAttention2d(8)
        >>> seen = module.observe(torch.randn(2, 8, 5, 7))
        >>> seen.gate.shape, seen.rectangle.shape, seen.weights
        (torch.Size([2, 5, 7]), torch.Size([2, 5]), None)
    """

    gate: Tensor | None = None
    """``(B, H, W)`` in [0, 1]: the share of each feature that passes."""
    weights: PairwiseWeights | None = None
    """What each position takes from each position; rows and columns are formed on demand."""
    rectangle: Tensor | None = None
    """``(B, 5)``: ``c_x, c_y, s_x, s_y, α`` of the rectangle that the gate is drawn from."""
    sharpness: float | None = None
    """``τ`` of that rectangle's edges, see `foveate.functional.rectangle_map`."""
    radius: float | None = None
    """Radius of the weights, in positions of the map."""


class SpatialAttention(nn.Module):
    """Base class of all attention modules: a map, a ``forward`` that agrees with it, and what others may ask of them.

    Whatever explains, scores, measures, draws or exports a network finds its attention by this class and asks nothing
    else. Derive a new mechanism from `GatedAttention` if it weighs positions, from `PairwiseAttention` if it weighs
    pairs of positions; everything then works with it.

    Examples:
        >>> network = timm.create_model("cram_resnet_tiny")
        >>> [name for name, m in network.named_modules() if isinstance(m, foveate.nn.SpatialAttention)]
        ['layer3.attention']
    """

    title: ClassVar[str] = ""
    """Name of the mechanism for readers; the class's name if empty."""
    description: ClassVar[str] = "The picture shows the module's attention map."
    """What a picture of the map shows, in a sentence or two."""
    is_gate: ClassVar[bool] = False
    """Whether the map weighs positions, ``(B, 1, H, W)``, not pairs of them, ``(B or 1, heads, N, N)``."""
    depends_on_content: ClassVar[bool] = True
    """Whether the map depends on the values of the input, not on its size alone."""
    convolution: ClassVar[str | None] = None
    """Name of a submodule that convolves beside the attention, and is not counted in its cost."""
    __jit_unused_properties__: ClassVar[list[str]] = ["parts"]

    def attention_map(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "maps heads rows columns"]:
        """Return the map for the input ``x`` of ``forward``, in at least float32.

        Of a gate it is ``(B, 1, H, W)``, otherwise ``(B or 1, heads, N, N)``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define attention_map(x)")

    def observe(self, x: Float[Tensor, "batch channels height width"]) -> Observation:
        """Return what the module attends to in ``x``, without gradients, to explain it."""
        raise NotImplementedError(f"{type(self).__name__} must be a GatedAttention or a PairwiseAttention")

    def forward_by_maps(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch dim_out rows columns"]:
        """Compute the output of ``forward`` by forming the whole map: slow, for tests and small inputs."""
        raise NotImplementedError(f"{type(self).__name__} has no forward_by_maps")

    @property
    def parts(self) -> tuple[str, ...]:
        """What can be switched off: ``("attention",)``, or the names of several parts of the map.

        Empty in a class that does not define `forward_without`.
        """
        return ("attention",) if type(self).forward_without is not SpatialAttention.forward_without else ()

    def forward_without(
        self, x: Float[Tensor, "batch channels height width"], part: str = "attention"
    ) -> Float[Tensor, "batch dim_out rows columns"]:
        """Compute the output with one of `parts` switched off."""
        raise ValueError(
            f"it is not known what {type(self).__name__} puts out without its attention; define forward_without in it"
        )

    def map_parameters(self) -> dict[str, slice]:
        """Name the parameters that make the map, with the rows of each that do; all of them by default."""
        return {name: slice(None) for name, _ in self.named_parameters()}

    def no_weight_decay(self) -> set[str]:
        """Name the parameters without weight decay: those whose zero means something."""
        return set()

    def scale_reach(self, factor: float) -> None:
        """Multiply what the map measures in positions, such as a radius, by ``factor``; by default there is nothing.

        For images ``factor`` times as large as those of the training, whose objects are as much larger.
        """

    def scalars(self) -> dict[str, tuple[float, float]]:
        """Return the learnable numbers of the map by name, each with its initial and its current value."""
        return {}

    def equivariance_loss(
        self,
        x: Float[Tensor, "batch channels height width"],
        moved_x: Float[Tensor, "batch channels height width"],
        similarity: Float[Tensor, "batch 4"],
        *,
        aspect: float = 1.0,
    ) -> Float[Tensor, ""]:
        """Return how far the map is from following its image; defined for gates."""
        raise ValueError(f"{type(self).__name__} is no gate: equivariance is asked of gates alone")


class GatedAttention(SpatialAttention):
    """Base class of attention that multiplies a feature map by a gate, ``x ⊙ A(x)``.

    A subclass defines ``attention_map``, with values in [0, 1], and nothing more.

    Examples:
        >>> class Brightness(foveate.nn.GatedAttention):
        ...     def attention_map(self, x):
        ...         return x.mean(1, keepdim=True).sigmoid()
        >>> Brightness()(torch.ones(1, 3, 1, 2))[0, 0]
        tensor([[0.7311, 0.7311]])
    """

    is_gate = True

    def forward(self, x: FeatureMap) -> FeatureMap:
        """Return ``x ⊙ A``, in the dtype and memory format of ``x``."""
        return x * self.attention_map(x).to(x.dtype)

    @torch.jit.unused
    def observe(self, x: Float[Tensor, "batch channels height width"]) -> Observation:
        """Return the gate; raise a `ValueError` if it is not one of all channels, ``(B, 1, H, W)``."""
        gate = self.attention_map(x)
        if gate.shape != (wanted := (len(x), 1, *x.shape[2:])):
            raise ValueError(f"attention_map must return one gate for all channels, {wanted}; got {tuple(gate.shape)}")
        return Observation(gate=on_cpu(gate[:, 0]))

    @torch.jit.unused
    def forward_by_maps(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Multiply by the map, as ``forward`` does."""
        return x * self.attention_map(x).to(x.dtype)

    @torch.jit.unused
    def forward_without(
        self, x: Float[Tensor, "batch channels height width"], part: str = "attention"
    ) -> Float[Tensor, "batch channels height width"]:
        """Let everything pass: ``A = 1``."""
        return x

    @torch.jit.unused
    def equivariance_loss(
        self,
        x: Float[Tensor, "batch channels height width"],
        moved_x: Float[Tensor, "batch channels height width"],
        similarity: Float[Tensor, "batch 4"],
        *,
        aspect: float = 1.0,
    ) -> Float[Tensor, ""]:
        """Return the mean of ``(T(A) − A')²`` where ``T(image)`` shows the image, ``A`` and ``A'`` the maps of both.

        A gate that is the same everywhere makes it zero. ``x`` and ``moved_x`` are the inputs of the module for the
        images and the warped images; ``similarity`` and ``aspect`` are as in `foveate.functional.warp`.
        """
        expected = warp(self.attention_map(x), similarity, aspect=aspect)
        error = (expected - self.attention_map(moved_x)).square()
        return mean_where(error, visible(expected, similarity, aspect=aspect))


class PairwiseAttention(SpatialAttention):
    """Base class of attention in which each position takes from each position, with N×N weights ``A``.

    A subclass defines ``forward``, ``attention_map`` and ``values``. One that can form rows of its map without the
    whole overrides `weights` as well.

    Examples:
        >>> module = foveate.nn.GlobalSelfAttention2d(8, feat_size=4)
        >>> weights = module.weights(torch.randn(1, 8, 4, 4))
        >>> weights.taken_by((0, 0)).shape
        torch.Size([1, 8, 4, 4])
    """

    def values(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch heads positions dim_head"]:
        """Return what the map weighs."""
        raise NotImplementedError(f"{type(self).__name__} must define values(x)")

    @torch.jit.unused
    def weights(self, x: Float[Tensor, "batch channels height width"]) -> PairwiseWeights:
        """Return the weights for the input ``x``, any rows and columns of which can be formed later.

        Raises:
            ValueError: The map can only be formed as a whole and is too large, or it is not of the size of ``x``.
        """
        size, values = (x.shape[2], x.shape[3]), detached(self.values(x))
        if values.shape[2] != size[0] * size[1]:
            raise ValueError(
                f"the values of {type(self).__name__} are at {values.shape[2]} positions, its input is "
                f"{size[0]}×{size[1]}; a module of yours must attend at the resolution of its input, or define weights"
            )
        values = values.unflatten(2, size)
        FormedWeights.check_size(values)
        formed = detached(self.attention_map(x)).expand(len(values), -1, -1, -1)
        return FormedWeights(values, partial(_some, formed))

    @torch.jit.unused
    def observe(self, x: Float[Tensor, "batch channels height width"]) -> Observation:
        """Return the weights."""
        return Observation(weights=self.weights(x))


def _some(maps: Tensor, images: slice) -> Tensor:
    return maps[images]


def on_cpu(x: Tensor) -> Tensor:
    """Return ``x`` in float32 on the CPU, without its gradient."""
    return x.detach().float().cpu()


def detached(x: Tensor) -> Tensor:
    """Return an independent copy on the CPU, in at least float32."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    return x.detach().to(device="cpu", dtype=dtype, copy=True)


def mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean of the chosen values; zero, with zero gradient, where there are none."""
    return (values * chosen).sum() / chosen.sum().clamp(min=1)
