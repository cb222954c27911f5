"""Similarities of the image plane (shift, rotation, scale), and what they do to images, maps and rectangles.

Places are in the coordinates of `rectangle_map`: both axes span [−1, 1], the edges of the image at ±1. A similarity
is four numbers, ``(t_x, t_y, θ, ρ)``. In *pixels* it turns by ``θ`` (clockwise on the screen, as ``y`` runs down) and
enlarges by ``ρ`` about the middle of the image; then it shifts by ``t``, in the coordinates above. With
``a = width / height`` of the image it maps a place ``p`` to

    T(p) = A p + t,    A = ρ [[cos θ, −sin θ / a], [a sin θ, cos θ]]

since ``A = D⁻¹ ρ R(θ) D`` with ``D = diag(W, H) / 2``, which turns coordinates into pixels. Without ``D`` a rotation
would shear every image that is not square. A map spans the same image whatever its size: ``a`` is the image's.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from foveate._checks import integer, number, one_of
from foveate._shapes import Bool, Float, Rectangles
from foveate.functional._precision import autocast_off, upcast, upcast_dtype
from foveate.functional.rectangle import check_rectangle, pixel_centers

__all__ = [
    "compose_similarities",
    "invert_similarity",
    "random_similarities",
    "rectangle_distance",
    "similarity_matrix",
    "transform_points",
    "transform_rectangle",
    "visible",
    "warp",
]

PADDINGS = ("reflection", "border", "zeros")


def similarity_matrix(similarity: Float[Tensor, "batch 4"], *, aspect: float = 1.0) -> Float[Tensor, "batch 2 3"]:
    """Return ``[A | t]`` of similarities ``t_x, t_y, θ, ρ``, in at least float32.

    The shift is in coordinates of [−1, 1] (2 is a whole side), the angle in radians, the factor above 0; ``aspect`` is
    the width of the image divided by its height, here and below.

    Examples:
        >>> FA.similarity_matrix(torch.tensor([[0.5, 0.0, 0.0, 2.0]]))
        tensor([[[2.0000, -0.0000, 0.5000],
                 [0.0000, 2.0000, 0.0000]]])
    """
    _check(similarity)
    number("aspect", aspect, above=0)
    with autocast_off(similarity):
        tx, ty, angle, factor = upcast(similarity).unbind(1)
        cos, sin = factor * angle.cos(), factor * angle.sin()
        return torch.stack([cos, -sin / aspect, tx, sin * aspect, cos, ty], dim=1).unflatten(1, (2, 3))


def compose_similarities(
    second: Float[Tensor, "batch 4"], first: Float[Tensor, "batch 4"], *, aspect: float = 1.0
) -> Float[Tensor, "batch 4"]:
    """Return the similarity that does ``first``, then ``second``: ``(A₂ t₁ + t₂, θ₁ + θ₂, ρ₁ ρ₂)``.

    Examples:
        >>> shift, enlarge = torch.tensor([[0.5, 0.0, 0.0, 1.0]]), torch.tensor([[0.0, 0.0, 0.0, 2.0]])
        >>> FA.compose_similarities(enlarge, shift)
        tensor([[1., 0., 0., 2.]])
    """
    _check(first)
    shift = transform_points(first[:, None, :2], second, aspect=aspect)[:, 0]
    return torch.cat([shift, first[:, 2:3] + second[:, 2:3], first[:, 3:] * second[:, 3:]], dim=1)


def invert_similarity(similarity: Float[Tensor, "batch 4"], *, aspect: float = 1.0) -> Float[Tensor, "batch 4"]:
    """Return the similarity that undoes one: ``(−A⁻¹ t, −θ, 1/ρ)``.

    Examples:
        >>> FA.invert_similarity(torch.tensor([[0.5, 0.25, 0.0, 2.0]])).tolist()
        [[-0.25, -0.125, -0.0, 0.5]]
    """
    _check(similarity)
    shift, angle, factor = similarity.split((2, 1, 1), dim=1)
    back = torch.cat([torch.zeros_like(shift), -angle, 1 / factor], dim=1)
    return torch.cat([-transform_points(shift[:, None], back, aspect=aspect)[:, 0], back[:, 2:]], dim=1)


def transform_points(
    points: Float[Tensor, "batch *points 2"], similarity: Float[Tensor, "batch 4"], *, aspect: float = 1.0
) -> Float[Tensor, "batch *points 2"]:
    """Return where points ``(x, y)`` in [−1, 1] coordinates are carried: ``A p + t``, in at least float32.

    Examples:
        >>> quarter_turn = torch.tensor([[0.0, 0.0, torch.pi / 2, 1.0]])
        >>> FA.transform_points(torch.tensor([[[1.0, 0.0]]]), quarter_turn).round()
        tensor([[[-0., 1.]]])
    """
    _check(similarity)
    if points.ndim < 2 or points.shape[-1] != 2 or not points.is_floating_point():
        raise ValueError(f"points must be floating-point (B, …, 2); got {points.dtype} of shape {tuple(points.shape)}")
    if len(points) != len(similarity):
        raise ValueError(f"{len(points)} rows of points need as many similarities; got {len(similarity)}")
    dtype = torch.promote_types(upcast_dtype(points.dtype), similarity.dtype)
    matrix = similarity_matrix(similarity.to(points.device, dtype), aspect=aspect)
    with autocast_off(points):
        flat = points.to(dtype).reshape(len(points), math.prod(points.shape[1:-1]), 2)
        return (flat @ matrix[:, :, :2].mT + matrix[:, None, :, 2]).view(points.shape)


def random_similarities(
    size: int, *, shift: float, rotation: float, scale: float, generator: torch.Generator | None = None
) -> Float[Tensor, "{size} 4"]:
    """Draw similarities: each shift uniform in ±``shift``, the angle in ±``rotation``, log ρ in ±log ``scale``.

    They are float32, on the CPU. A shift of 2 is a whole side; the smallest factor is the reciprocal of the largest,
    ``scale ≥ 1``: the distribution of a similarity about the middle of the image is that of its inverse.

    Examples:
        >>> FA.random_similarities(3, shift=0.2, rotation=torch.pi / 6, scale=1.2).shape
        torch.Size([3, 4])
    """
    integer("size", size, minimum=0)
    for name, value in (("shift", shift), ("rotation", rotation)):
        number(name, value, minimum=0)
    number("scale", scale, minimum=1)
    draws = 2 * torch.rand(size, 4, generator=generator, dtype=torch.float32, device="cpu") - 1
    drawn = draws * draws.new_tensor([shift, shift, rotation, math.log(scale)])
    return torch.cat([drawn[:, :3], drawn[:, 3:].exp()], dim=1)


def warp(
    images: Float[Tensor, "batch channels height width"],
    similarity: Float[Tensor, "batch 4"],
    *,
    aspect: float | None = None,
    padding: str = "reflection",
) -> Float[Tensor, "batch channels height width"]:
    """Return ``T(image)``: what was at ``p`` stands at ``T(p)``, read at ``T⁻¹`` of each pixel's center, bilinearly.

    Where ``T⁻¹`` leads out of the image, ``padding`` is ``reflection`` at its edges, ``border`` or ``zeros``; zeros
    draw the frame of the image into it, an edge that gives the similarity away. Bilinear reading is meant for factors
    ``ρ`` near 1: below about 1/2 it skips pixels. The default ``aspect`` is that of ``images``, which is wrong for maps
    of another shape than the image. Computed in at least float32, and differentiable in ``images``.

    Examples:
        >>> half_a_side = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
        >>> FA.warp(torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]]), half_a_side, padding="zeros")
        tensor([[[[0., 0., 1., 2.]]]])
    """
    one_of("padding", padding, PADDINGS)
    aspect = _aspect(images, similarity, aspect)
    if not images.numel():  # which PyTorch does not sample
        return images.clone()
    back = similarity_matrix(invert_similarity(similarity, aspect=aspect), aspect=aspect)
    with autocast_off(images):
        wide = upcast(images)
        grid = F.affine_grid(back.to(wide), list(images.shape), align_corners=False)
        return F.grid_sample(wide, grid, padding_mode=padding, align_corners=False).to(images.dtype)


def visible(
    images: Float[Tensor, "batch channels height width"],
    similarity: Float[Tensor, "batch 4"],
    *,
    aspect: float | None = None,
) -> Bool[Tensor, "batch 1 height width"]:
    """Return where ``T(image)`` of `warp` shows the image: the pixels whose center ``T⁻¹`` carries into it.

    Examples:
        >>> FA.visible(torch.zeros(1, 3, 1, 4), torch.tensor([[1.0, 0.0, 0.0, 1.0]]))
        tensor([[[[False, False,  True,  True]]]])
    """
    aspect = _aspect(images, similarity, aspect)
    if not images.numel():
        return images.new_zeros(len(images), 1, *images.shape[2:], dtype=torch.bool)
    back = upcast(invert_similarity(similarity.to(images.device), aspect=aspect))
    y, x = torch.meshgrid(*(pixel_centers(size, back) for size in images.shape[2:]), indexing="ij")
    places = torch.stack([x, y], dim=-1).expand(len(back), -1, -1, -1)
    return (transform_points(places, back, aspect=aspect).abs() <= 1).all(-1).unsqueeze(1)


def transform_rectangle(
    rectangle: Rectangles, similarity: Float[Tensor, "batch 4"], *, aspect: float = 1.0
) -> Rectangles:
    """Return the rectangle of ``T(image)`` given that of the image, ``c_x, c_y, s_x, s_y, α`` as in `rectangle_map`.

    On a square image this is exact: ``(A c + t, ρ s_x, ρ s_y, α + θ)``. The edges of `rectangle_map` soften with the
    factor: the map of the result, drawn with sharpness ``τ/ρ``, is the warped map.

    On any other, an inclined rectangle of these coordinates is a parallelogram in pixels, and a rotation makes of it
    another one, in general no rectangle of these coordinates. The result is the rectangle with the same center and
    the same second moments: with ``M = R(α) diag(s²) R(α)ᵀ``, those of ``A M Aᵀ``. Its center and area are exact, as is
    all of it where nothing is turned (or by π), and transforms compose. It comes with ``s_x ≥ s_y`` and
    ``−π/2 ≤ α ≤ π/2``; the gradients of both are 0 where its sides are equal: compare by `rectangle_distance`.

    Examples:
        >>> rectangle, shift = torch.tensor([[0.0, 0.0, 0.5, 0.25, 0.0]]), torch.tensor([[0.5, 0.0, 0.0, 2.0]])
        >>> FA.transform_rectangle(rectangle, shift).tolist()
        [[0.5, 0.0, 1.0, 0.5, 0.0]]
    """
    check_rectangle(rectangle)
    with autocast_off(rectangle):
        rectangle = upcast(rectangle)
        similarity = similarity.to(rectangle)
        if aspect == 1:
            center = transform_points(rectangle[:, None, :2], similarity)[:, 0]
            sides = rectangle[:, 2:4] * similarity[:, 3:]
            return torch.cat([center, sides, rectangle[:, 4:] + similarity[:, 2:3]], dim=1)
        center, shape = _moved(*_form(rectangle), similarity, aspect)
        (a, b), (_, d) = shape[:, 0].unbind(1), shape[:, 1].unbind(1)
        mean, squared = (a + d) / 2, ((a - d) / 2).square() + b.square()
        oblong = squared > 0  # a square has neither direction nor their gradients
        half = torch.where(oblong, squared, 1).sqrt() * oblong
        angle = torch.atan2(2 * b, torch.where(oblong, a - d, 1)) / 2
        return torch.cat([center, torch.stack([mean + half, mean - half, angle], dim=1)], dim=1)


def rectangle_distance(
    rectangle: Rectangles, other: Rectangles, *, similarity: Float[Tensor, "batch 4"] | None = None, aspect: float = 1.0
) -> Float[Tensor, " batch"]:
    """Return the squared distance between rectangles, whatever five numbers name them.

        d² = ‖c − c'‖² + ‖S − S'‖²,    S = R(α) diag(s_x, s_y) R(α)ᵀ    (Frobenius)

    The symmetric positive ``S`` stretches the square of half-size 1 with the rectangle's directions into the
    rectangle; ``S²`` is the matrix of its second moments. With ``m = (s_x + s_y)/2`` and ``h = (s_x − s_y)/2``,

        S = m I + h [[cos 2α, sin 2α], [sin 2α, −cos 2α]],    ‖S − S'‖² = 2 (m − m')² + 2 |h e^{2iα} − h' e^{2iα'}|²

    Neither ``α + π`` nor ``(s_y, s_x, α + π/2)`` changes ``S`` (the latter turns the sign of ``h`` and that of
    ``e^{2iα}``), so neither changes the distance. It is zero for the same rectangle alone, with one exception: second
    moments do not tell how a square is turned. As a polynomial in ``s`` and ``e^{2iα}`` it is smooth everywhere; the
    angle's gradient has the factor ``h`` and fades as the rectangle becomes a square. Where both angles agree, ``d²``
    is the mean over the four corners of the squared distance between one and the other.

    With ``similarity``, ``T(rectangle)`` as in `transform_rectangle` is compared with ``other``. ``S`` becomes the root
    of ``A S² Aᵀ``, on square images ``ρ R(θ) S R(θ)ᵀ``; smooth as well.

    Examples:
        >>> one = torch.tensor([[0.0, 0.0, 0.5, 0.25, 0.0]])
        >>> the_same = torch.tensor([[0.0, 0.0, 0.25, 0.5, torch.pi / 2]])
        >>> FA.rectangle_distance(one, the_same).round(decimals=6)
        tensor([0.])
    """
    check_rectangle(rectangle)
    check_rectangle(other)
    with autocast_off(rectangle):
        center, shape = _form(upcast(rectangle))
        if similarity is not None:
            center, shape = _moved(center, shape, similarity, aspect)
        other_center, other_shape = _form(upcast(other))
        return (center - other_center).square().sum(1) + (shape - other_shape).square().sum((1, 2))


def _form(rectangle: Tensor) -> tuple[Tensor, Tensor]:
    """Return the center ``(B, 2)`` and the shape ``S = R(α) diag(s) R(α)ᵀ``, ``(B, 2, 2)``."""
    center, (sx, sy, angle) = rectangle[:, :2], rectangle[:, 2:].unbind(1)
    mean, half = (sx + sy) / 2, (sx - sy) / 2
    cos, sin = half * (2 * angle).cos(), half * (2 * angle).sin()
    return center, torch.stack([mean + cos, sin, sin, mean - cos], dim=1).unflatten(1, (2, 2))


def _moved(center: Tensor, shape: Tensor, similarity: Tensor, aspect: float) -> tuple[Tensor, Tensor]:
    """Return the center and the shape of ``T(rectangle)``: ``A c + t`` and the root of ``A S² Aᵀ``.

    A positive 2×2 matrix ``M`` has the root ``(M + √det M · I) / √(tr M + 2 √det M)``, and ``√det M`` is
    ``|det A| det S = ρ² det S``. Where ``A`` is ``ρ`` times a rotation (or no turn at all), the root is ``A S Aᵀ / ρ``.
    """
    similarity = similarity.to(shape)
    linear, factor = similarity_matrix(similarity, aspect=aspect)[:, :, :2], similarity[:, 3]
    center = transform_points(center[:, None], similarity, aspect=aspect)[:, 0]
    if aspect == 1:
        return center, linear @ shape @ linear.mT / factor[:, None, None]
    root = linear @ shape
    moments = root @ root.mT
    area = factor.square() * (shape[:, 0, 0] * shape[:, 1, 1] - shape[:, 0, 1] * shape[:, 1, 0])
    trace = moments.diagonal(dim1=1, dim2=2).sum(1)
    eye = torch.eye(2, device=shape.device, dtype=shape.dtype)
    return center, (moments + area[:, None, None] * eye) / (trace + 2 * area).sqrt()[:, None, None]


def _aspect(images: Tensor, similarity: Tensor, aspect: float | None) -> float:
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"images must be a floating-point batch (B, C, H, W); got {images.dtype} {tuple(images.shape)}"
        )
    _check(similarity)
    if len(similarity) != len(images):
        raise ValueError(f"{len(images)} images need as many similarities; got {len(similarity)}")
    own = images.shape[3] / images.shape[2] if images.numel() else 1.0
    return own if aspect is None else number("aspect", aspect, above=0)


def _check(similarity: Tensor) -> None:
    if similarity.ndim != 2 or similarity.shape[1] != 4 or not similarity.is_floating_point():
        raise ValueError(
            "a similarity is four floating-point numbers a row, (B, 4): t_x, t_y, angle, factor; got "
            f"{similarity.dtype} of shape {tuple(similarity.shape)}"
        )
