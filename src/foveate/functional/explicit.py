"""Explicitly modeled attention (ExpAtt): a map that is a function of distance, with one radius.

The map is the same for every image,

    A_ij = κ(‖p_i − p_j‖ / r) / Σ_k κ(‖p_i − p_k‖ / r),        r > 0,

with ``p_i`` the position of pixel ``i`` in feature-map pixels, and ``A V`` the result. The distance is Euclidean, and
for the kernel ``laplace_l1`` that of the city blocks, ``|x_i − x_j| + |y_i − y_j|``.

Source: Tan et al., *Explicitly Modeled Attention Maps for Image Classification* (AAAI 2021,
arXiv 2006.07872), of which a simple function of distance with one learnable radius, such as a Gaussian, is stated.
Which others the paper tries is not known here; the kernels beside the Gaussian were chosen.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from foveate._checks import integer, one_of
from foveate._shapes import AnyShape, Float
from foveate.functional._layout import in_layout_of, is_channels_last
from foveate.functional._plain import any_size, uses_plain_operators
from foveate.functional._precision import autocast_off, upcast_dtype

__all__ = [
    "KERNELS",
    "explicit_attention",
    "explicit_attention_map",
    "explicit_attention_rows",
    "gaussian_line_map",
    "laplace_line_map",
]

KERNELS = ("gaussian", "laplace", "laplace_l1", "cauchy", "cone")

SEPARABLE = ("gaussian", "laplace_l1")
"""Kernels whose maps are Kronecker products of those of a column and of a row."""

DENSE_MAX_POSITIONS = 576
"""Largest number of positions at which a kernel that does not factorize is applied as a matrix; above, by FFT.

On two CPU cores the two take the same time between 24×24 and 28×28 (8 images, 24 channels)."""


def explicit_attention_map(
    height: int, width: int, radius: AnyShape, kernel: str = "gaussian"
) -> Float[Tensor, "{height*width} {height*width}"]:
    """Form the whole map: what each pixel attends to, with which weight.

    Pixels are in row-major order; each row lies in [0, 1] and sums to 1, in at least float32. The sign of the radius is
    not checked: on a GPU that would cost more than the map.

    Args:
        height: Rows of the feature map, ``H``.
        width: Columns of the feature map, ``W``.
        radius: ``r > 0`` in feature-map pixels, a tensor with one element, whose device the map is on. Of a negative
            one the absolute value is taken; below e⁻³⁰ and above e³⁰ the map is that limit, and the gradient 0.
        kernel: ``gaussian`` exp(−d²/2), ``laplace`` exp(−d), ``cauchy`` 1/(1 + d²) or ``cone`` max(0, 1 − d)
            of the distance ``d`` in radii; ``laplace_l1`` is ``laplace`` of the city-block distance.

    Examples:
        >>> FA.explicit_attention_map(1, 3, torch.tensor(1.0))
        tensor([[0.5741, 0.3482, 0.0777],
                [0.2741, 0.4519, 0.2741],
                [0.0777, 0.3482, 0.5741]])
    """
    rows = explicit_attention_rows(height, width, radius, kernel)
    return rows.view(height * width, height * width)


def explicit_attention_rows(
    height: int,
    width: int,
    radius: AnyShape,
    kernel: str = "gaussian",
    rows: slice = slice(None),
    columns: slice = slice(None),
) -> Float[Tensor, "attending_rows attending_columns {height} {width}"]:
    """Form the rows of `explicit_attention_map` of the pixels in ``rows`` and ``columns``.

    Arguments and errors as there. Entry ``[a, b, p, q]`` is what the ``a``-th row and ``b``-th column of those take
    from ``(p, q)``.

    Examples:
        >>> FA.explicit_attention_rows(5, 7, torch.tensor(2.0), rows=slice(1, 2), columns=slice(0, 3)).shape
        torch.Size([1, 3, 5, 7])
    """
    integer("height", height)
    integer("width", width)
    _check(kernel, radius)
    return _rows(height, width, _limited(radius), kernel, rows, columns)


def _rows(
    height: int, width: int, radius: Tensor, kernel: str, rows: slice = slice(None), columns: slice = slice(None)
) -> Tensor:
    with autocast_off(radius):
        if kernel in SEPARABLE:  # A = A_H ⊗ A_W
            down, along = _line_map(height, radius, kernel)[rows], _line_map(width, radius, kernel)[columns]
            return down[:, None, :, None] * along[None, :, None, :]
        down, along = _offsets(height, radius)[rows], _offsets(width, radius)[columns]
        weights = _kernel(down[:, None, :, None] ** 2 + along[None, :, None, :] ** 2, radius, kernel)
        return weights / weights.sum((-2, -1), keepdim=True)


def gaussian_line_map(size: int, radius: AnyShape) -> Float[Tensor, "{size} {size}"]:
    """Form the Gaussian map of one line of ``size`` pixels, rows summing to 1.

    The Gaussian of a distance is the product of the Gaussians of its two coordinates, and so is its normalizer: the map
    of an image is the Kronecker product of the maps of a column and of a row.

    Examples:
        >>> column, row = FA.gaussian_line_map(5, torch.tensor(2.0)), FA.gaussian_line_map(7, torch.tensor(2.0))
        >>> torch.allclose(torch.kron(column, row), FA.explicit_attention_map(5, 7, torch.tensor(2.0)))
        True
    """
    integer("size", size)
    _check("gaussian", radius)
    return _line_map(size, _limited(radius), "gaussian")


def laplace_line_map(size: int, radius: AnyShape) -> Float[Tensor, "{size} {size}"]:
    """Form the map of one line of ``size`` pixels with the Laplace kernel, rows summing to 1.

    The Laplace kernel of a city-block distance is the product of those of its two coordinates, which it is not of a
    Euclidean distance: the map of an image with ``laplace_l1`` is the Kronecker product of the maps of a column and of
    a row.

    Examples:
        >>> column, row = FA.laplace_line_map(5, torch.tensor(2.0)), FA.laplace_line_map(7, torch.tensor(2.0))
        >>> torch.allclose(torch.kron(column, row), FA.explicit_attention_map(5, 7, torch.tensor(2.0), "laplace_l1"))
        True
    """
    integer("size", size)
    _check("laplace_l1", radius)
    return _line_map(size, _limited(radius), "laplace_l1")


def _line_map(size: int, radius: Tensor, kernel: str) -> Tensor:
    # Dividing before squaring keeps r = 1e-6 and r = 1e6 far from the ends of float32.
    distance = _offsets(size, radius) / radius
    logits = -0.5 * distance**2 if kernel == "gaussian" else -distance.abs()
    return logits.softmax(-1)


def explicit_attention(
    value: Float[Tensor, "batch channels height width"], radius: AnyShape, kernel: str = "gaussian"
) -> Float[Tensor, "batch channels height width"]:
    """Compute ``A V`` without forming the ``N×N`` map of `explicit_attention_map`.

    - ``gaussian`` and ``laplace_l1``: ``A_H V A_Wᵀ``, two products with one-dimensional maps, ``N(H + W)C``
      multiply-adds. The same numbers as with the whole map, not an approximation of them.
    - the others: a convolution with the fixed stencil κ(‖δ‖/r), divided by the same convolution of ones: by FFT in
      ``O(N log N)`` above `DENSE_MAX_POSITIONS` positions, else (and in an exported or traced graph, which is for every
      size) by the map itself.

    As ``r → 0`` the result tends to ``value``, as ``r → ∞`` to its mean over the positions, without overflow: maps and
    sums are in at least float32; the result has the dtype and memory format of ``value``. The gradient of ``r`` is
    exact; it underflows to zero together with the weights of the neighbors (and is zero for ``cone`` at ``r ≤ 1``,
    where no neighbor is attended to). Arguments are those of `explicit_attention_map`.

    Examples:
        >>> value, radius = torch.randn(2, 3, 5, 7), torch.tensor(2.0)
        >>> by_map = value.flatten(2) @ FA.explicit_attention_map(5, 7, radius).T
        >>> torch.allclose(FA.explicit_attention(value, radius).flatten(2), by_map, atol=1e-6)
        True
    """
    if value.ndim != 4 or not value.is_floating_point():
        raise ValueError(f"value must be floating-point (B, C, H, W); got {value.dtype} of shape {tuple(value.shape)}")
    _check(kernel, radius)
    dtype = upcast_dtype(value.dtype)
    with autocast_off(value):
        wide, radius = value.to(dtype), _limited(radius, dtype)
        if kernel in SEPARABLE:
            out = _separable(wide, radius, kernel)
        elif _one_graph() or value.shape[-2] * value.shape[-1] <= DENSE_MAX_POSITIONS:
            weights = _rows(value.shape[-2], value.shape[-1], radius, kernel).flatten(2).flatten(0, 1)
            out = torch.matmul(wide.flatten(2), weights.transpose(0, 1)).view(wide.shape)
        elif not value.numel():  # for which there is no FFT
            out = wide * radius
        else:
            out = _spectral(wide, radius, kernel)
    # The products have a layout of their own.
    return in_layout_of(value, out.to(value.dtype))


def _check(kernel: str, radius: Tensor) -> None:
    one_of("kernel", kernel, KERNELS)
    if not isinstance(radius, Tensor) or not radius.is_floating_point():
        raise ValueError(f"radius must be a floating-point tensor of one element; got {radius!r}")
    if not torch.jit.is_tracing() and radius.numel() != 1:
        raise ValueError(f"radius must be a tensor of one element; got shape {tuple(radius.shape)}")


def _one_graph() -> bool:
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


def _separable(value: Tensor, radius: Tensor, kernel: str) -> Tensor:
    batch, channels, height, width = value.shape
    rows = _line_map(height, radius, kernel)
    columns = rows if not any_size() and height == width else _line_map(width, radius, kernel)
    if uses_plain_operators():  # factors are expanded here, so that FLOP counters see it
        x = value.flatten(0, 1)
        x = torch.matmul(x, columns.transpose(0, 1).expand(x.shape[0], -1, -1))
        return torch.matmul(rows.expand(x.shape[0], -1, -1), x).unflatten(0, value.shape[:2])
    if is_channels_last(value):
        x = value.permute(0, 2, 3, 1)  # B, H, W, C without a copy: both products read whole lines
        x = torch.matmul(columns, x.reshape(batch * height, width, channels))
        x = torch.matmul(rows, x.view(batch, height, width * channels))
        return x.view(batch, height, width, channels).permute(0, 3, 1, 2)
    x = torch.matmul(value.reshape(-1, width), columns.transpose(0, 1))
    return torch.matmul(rows, x.view(batch * channels, height, width)).view(value.shape)


def _spectral(value: Tensor, radius: Tensor, kernel: str) -> Tensor:
    height, width = value.shape[-2:]
    size = (2 * height, 2 * width)  # so that the circular convolution does not wrap around
    rows, columns = (_circular_distance(n, radius) for n in size)
    stencil = torch.fft.rfft2(_kernel(rows[:, None] ** 2 + columns**2, radius, kernel))
    ones = torch.fft.rfft2(torch.ones_like(value[:1, :1]), s=size)
    normalizer = torch.fft.irfft2(ones * stencil, s=size)[..., :height, :width]
    product = torch.fft.irfft2(torch.fft.rfft2(value, s=size) * stencil, s=size)[..., :height, :width]
    return product / normalizer


def _kernel(squared: Tensor, radius: Tensor, kernel: str) -> Tensor:
    """Return κ(d) for squared distances in pixels."""
    distance = squared.sqrt() / radius
    if kernel == "laplace":
        return (-distance).exp()
    if kernel == "cauchy":
        return 1 / (1 + distance**2)
    return (1 - distance).clamp(min=0)


def _limited(radius: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return the radius as a number from e⁻³⁰ to e³⁰, in at least float32: beyond lie gradients that are 0 · ∞."""
    return radius.to(dtype or upcast_dtype(radius.dtype)).reshape(()).abs().clamp(math.exp(-30), math.exp(30))


def _offsets(size: int, like: Tensor) -> Tensor:
    positions = torch.arange(size, device=like.device, dtype=like.dtype)
    return positions[:, None] - positions


def _circular_distance(size: int, like: Tensor) -> Tensor:
    positions = torch.arange(size, device=like.device, dtype=like.dtype)
    return torch.minimum(positions, size - positions)
