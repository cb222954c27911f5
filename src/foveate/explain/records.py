"""What an attention module attended to, as a value: maps, rectangles, radii, and the weights behind them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from foveate import _checks
from foveate._shapes import Float
from foveate.explain.asked import Box, box_inside, inside
from foveate.nn import PairwiseWeights

__all__ = [
    "BOXED",
    "GATE",
    "GIVEN",
    "GRADCAM",
    "QUERIED",
    "RECEIVED",
    "AttentionRecord",
    "RectangleShape",
    "Scale",
    "shares",
]


WHOLE = 0.95
"""Share of a picture from which on a rectangle is said to cover the whole of it."""
POINTS = 200
"""Points along each side by which areas are measured."""


@dataclass(frozen=True)
class Scale:
    """Meaning of the values of a map, and the range in which they are drawn, the same for every image and network.

    Examples:
        >>> scale = foveate.explain.Scale(0.0, 1.0, "share of each feature that passes")
        >>> scale.high
        1.0
    """

    low: float
    high: float
    meaning: str


GATE = Scale(0.0, 1.0, "gate: the share of each feature that passes, from 0 (none) to 1 (all)")
RECEIVED = Scale(
    0.0,
    4.0,
    "attention received, against uniform attention: 1 is as much as every position would receive if all received the "
    "same; 4 and more look alike",
)
QUERIED = Scale(0.0, 4.0, RECEIVED.meaning.replace("attention received", "attention received from one position"))
BOXED = Scale(0.0, 4.0, RECEIVED.meaning.replace("attention received", "attention received from the box"))
GIVEN = Scale(0.0, 4.0, RECEIVED.meaning.replace("attention received", "attention paid to one position"))
GRADCAM = Scale(
    0.0,
    4.0,
    "Grad-CAM: evidence for the class, against evenly spread evidence: 1 is as much as every position would have if "
    "all had the same; 4 and more look alike",
)
DIRECTIONS = {"from": QUERIED, "to": GIVEN}


class RectangleShape(NamedTuple):
    """Rectangles in pixels of the network's input, x to the right and y down.

    Where the input is not square, an inclined rectangle of CRAM is a parallelogram in pixels: its corners are exact,
    and these are its middle, the lengths of its edges and the direction of the first.
    """

    center: Tensor
    """``(B, 2)``: x and y."""
    sides: Tensor
    """``(B, 2)``: whole lengths of the first edge and of the one that follows it."""
    angle: Tensor
    """``(B,)``: of the first edge, in radians, clockwise on the screen; within (−π/2, π/2]."""


@dataclass(frozen=True, eq=False)
class AttentionRecord:
    """What one attention module attended to, for each image of a batch.

    Where a module weighs every position for every other (an N×N map), ``map`` is a summary in two dimensions: the
    weight that each position *receives*, from all positions or from the queried one, as a share of the whole and in
    units of the uniform share ``1/N``,

        map_j = N · Σ_hi |A_hij| / Σ_hij |A_hij|      (h over heads, i over positions or the queried one)

    A flat map has the value 1 everywhere. Where rows sum to 1, as of a softmax or a kernel, it is the mean over heads
    and positions, times N. The weights of global self-attention have a sign; their magnitude counts.
    `attention_from` and `attention_to` have the signed weights of any position, `queried` the map of them.

    Examples:
        >>> network = timm.create_model("gsa_resnet_tiny")
        >>> record = foveate.explain(network, torch.randn(1, 3, 32, 32))["layer3.0.conv2"]
        >>> record.map.shape, record.attention_from((5, 9)).shape
        (torch.Size([1, 16, 16]), torch.Size([1, 1, 16, 16]))
    """

    name: str
    """The module's name in the network."""
    kind: str
    """Its class, or ``GradCAM``."""
    map: Tensor
    """``(B, h, w)``, float32, on the CPU, at the resolution that is attended to."""
    scale: Scale
    image_size: tuple[int, int]
    """Height and width that the map spans, in pixels: of the images, and of what `Segmenter` and `Detector` pad them
    with at the right and at the bottom."""
    query: tuple[int, int] | None = None
    """Row and column of the image pixel whose position attends; None for all positions together."""
    box: Box | None = None
    """Box in pixels of the image whose positions attend together."""
    title: str = ""
    """Name of the mechanism for readers."""
    description: str = ""
    """What the picture shows, in a sentence or two."""
    depends_on_content: bool = True
    """Whether another image of the same size would have another map."""
    rectangle: Tensor | None = None
    """``(B, 4, 2)``: the corners of CRAM's rectangle as (x, y) in image pixels, the image from 0 to its width and
    height; clockwise on the screen."""
    numbers: Tensor | None = None
    """``(B, 5)``: the five numbers of CRAM, ``c_x, c_y, s_x, s_y, α``, in coordinates where the map spans [−1, 1]."""
    sharpness: float | None = None
    """Sharpness of the rectangle's edges, see `foveate.functional.rectangle_map`."""
    radius: float | None = None
    """ExpAtt's radius in pixels of the map."""
    radius_image: tuple[float, float] | None = None
    """The same in image pixels, along x and along y."""
    weights: PairwiseWeights | None = None
    """The weights of N×N maps themselves, by position of the map."""
    target: tuple[int, ...] | None = None
    """Class of each image whose evidence a Grad-CAM map shows."""

    @property
    def shape(self) -> RectangleShape | None:
        """Center, sides and angle of CRAM's rectangle in image pixels; None for other modules."""
        if self.rectangle is None:
            return None
        first, second = (self.rectangle[:, end] - self.rectangle[:, start] for start, end in ((0, 1), (1, 2)))
        angle = torch.atan2(first[:, 1], first[:, 0])
        half_turns = torch.ceil(angle / torch.pi - 0.5)  # turned by π a rectangle is the same
        sides = torch.stack([first.norm(dim=1), second.norm(dim=1)], dim=1)
        return RectangleShape(self.rectangle.mean(1), sides, angle - torch.pi * half_turns)

    @property
    def covered(self) -> Tensor | None:
        """Share of each image that lies in CRAM's rectangle, ``(B,)``, within 0.01; None for other modules."""
        if self.rectangle is None:
            return None
        steps = (torch.arange(POINTS, dtype=torch.double) + 0.5) / POINTS
        height, width = self.image_size
        points = torch.cartesian_prod(steps * width, steps * height)  # N, 2
        corners = self.rectangle.double()
        edges = corners.roll(-1, dims=1) - corners  # B, 4, 2
        offsets = points[:, None] - corners[:, None]  # B, N, 4, 2
        turns = edges[:, None, :, 0] * offsets[..., 1] - edges[:, None, :, 1] * offsets[..., 0]
        return (turns >= 0).all(-1).double().mean(1)  # clockwise on the screen: inside is on the right of every edge

    def looks_at_all(self, index: int = 0) -> bool:
        """Tell whether CRAM's rectangle covers (almost) the whole of image ``index`` of the batch."""
        covered = self.covered
        return covered is not None and bool(covered[index] >= WHOLE)

    def resampled(self, mode: str = "nearest") -> Float[Tensor, "batch height width"]:
        """Return the map at the resolution of the image, by ``nearest`` or ``bilinear`` interpolation."""
        _checks.one_of("mode", mode, ("nearest", "bilinear"))
        how = "nearest-exact" if mode == "nearest" else mode
        return F.interpolate(self.map[:, None], self.image_size, mode=how)[:, 0]

    def position(self, query: tuple[int, int]) -> tuple[int, int]:
        """Return row and column of the map's position that covers the image pixel ``query``."""
        row, column = inside(query, self.image_size)
        return position_of((row, column), self.image_size, (self.map.shape[1], self.map.shape[2]))

    def positions(self, box: Box) -> tuple[slice, slice]:
        """Return rows and columns of the map's positions whose middle lies in a box in pixels of the image.

        Of a box between the middles of all, those are the row and the column that cover the middle of the box.
        """
        found = []
        for axis, low, high in ((0, box[1], box[3]), (1, box[0], box[2])):
            step = self.image_size[axis] / self.map.shape[1 + axis]
            first, last = math.ceil(low / step - 0.5), math.ceil(high / step - 0.5)
            if first >= last:
                first = min(int((low + high) / 2 / step), self.map.shape[1 + axis] - 1)
                last = first + 1
            found.append(slice(first, last))
        return found[0], found[1]

    def attention_from(self, query: tuple[int, int], part: str = "both") -> Float[Tensor, "batch heads rows columns"]:
        """Return the signed weights with which the position at the image pixel ``query`` takes from each position.

        ``query`` is ``(row, column)``; ``part`` is ``content``, ``positional`` or ``both``, for global self-attention.
        """
        return self._pairs().taken_by(self.position(query), part)

    def attention_to(self, query: tuple[int, int], part: str = "both") -> Float[Tensor, "batch heads rows columns"]:
        """Return the weights with which each position takes from the one at ``query``; as `attention_from`."""
        return self._pairs().given_by(self.position(query), part)

    def queried(
        self, query: tuple[int, int] | None, *, direction: str = "from", part: str = "both", head: int | None = None
    ) -> AttentionRecord:
        """Return a record whose map is that of one position, one part, or one head, to draw it.

        Args:
            query: ``(row, column)`` of an image pixel; None for all positions together.
            direction: ``from``: what the position at ``query`` takes from each; ``to``: what each takes from it.
            part: As in `attention_from`.
            head: One head; all together by default.
        """
        weights = self._pairs()
        _checks.one_of("direction", direction, DIRECTIONS)
        self._check_head(weights, head)
        if query is None:
            received, scale = weights.received(part, head), RECEIVED
        else:
            signed = self.attention_from(query, part) if direction == "from" else self.attention_to(query, part)
            received = (signed if head is None else signed[:, head : head + 1]).abs().sum(1)
            scale = DIRECTIONS[direction]
        return dataclasses.replace(self, map=shares(received), scale=_named(scale, part, head), query=query, box=None)

    def queried_box(self, box: Box, *, part: str = "both", head: int | None = None) -> AttentionRecord:
        """Return a record whose map is that of all positions in a box together, to draw it.

        With ``B`` the positions whose middle lies in the box, the mean over them of the magnitudes,

            map_j = N · Σ_{h, i ∈ B} |A_hij| / Σ_{h, i ∈ B, k} |A_hik|

        Args:
            box: ``(x_min, y_min, x_max, y_max)`` in pixels of the image, the last two exclusive.
            part: As in `attention_from`.
            head: One head; all together by default.

        Raises:
            ValueError: The box has no area or reaches out of the image, or the module has no such part or head.
        """
        weights = self._pairs()
        box = box_inside(box, self.image_size)
        rows, columns = self.positions(box)
        self._check_head(weights, head)
        received = weights.received(part, head, rows=rows, columns=columns)
        return dataclasses.replace(self, map=shares(received), scale=_named(BOXED, part, head), query=None, box=box)

    def _check_head(self, weights: PairwiseWeights, head: int | None) -> None:
        if head is not None and _checks.integer("head", head, minimum=0) >= weights.heads:
            raise ValueError(f"head must be below {weights.heads}, the number of heads of {self.name}; got {head}")

    def _pairs(self) -> PairwiseWeights:
        if self.weights is None:
            raise ValueError(
                f"{self.name or 'the network'} ({self.kind}) has one map for all positions, in `map`; only global, "
                "explicit and augmented attention have weights from and to a pixel"
            )
        return self.weights


def position_of(query: tuple[int, int], image: tuple[int, int], map_size: tuple[int, int]) -> tuple[int, int]:
    """Return the position of a map whose part of an image of this size holds the middle of a pixel."""
    row, column = (
        (2 * pixel + 1) * positions // (2 * side) for pixel, positions, side in zip(query, map_size, image, strict=True)
    )
    return row, column


def shares(weights: Tensor) -> Tensor:
    """Turn non-negative weights ``(B, h, w)`` into shares of the whole in units of the uniform share, in float32."""
    total = weights.sum((1, 2), keepdim=True)
    number = weights[0].numel()
    # A sum of zero, as of GSA's attention to an empty input, prefers no position.
    return torch.where(total == 0, 1.0, number * weights / total).float()


def _named(scale: Scale, part: str, head: int | None) -> Scale:
    """Return a scale that says of which part and head a map is."""
    which = ", ".join(filter(None, (f"{part} part" * (part != "both"), f"head {head}" * (head is not None))))
    return dataclasses.replace(scale, meaning=f"{which}: {scale.meaning}") if which else scale
