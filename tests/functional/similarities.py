"""Similarities and rectangles to test with, and what becomes of a place, by complex numbers."""

from __future__ import annotations

import cmath
import math

import numpy as np
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from foveate import functional as FA

__all__ = ["carried", "drawn", "matrix_root", "rectangles", "undone"]


def drawn(size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return FA.random_similarities(size, shift=0.5, rotation=math.pi, scale=2.0, generator=generator).double()


def rectangles(size: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.tensor([[-0.7, -0.7, 0.1, 0.1, -3.0], [0.7, 0.7, 1.7, 0.9, 3.0]], dtype=torch.float64)
    return low + (high - low) * torch.rand(size, 5, generator=generator, dtype=torch.float64)


def carried(place: complex, similarity: list[float], height: int, width: int) -> complex:
    """Return T of a place, by turning and enlarging its pixel coordinates: in the plane of complex numbers."""
    tx, ty, angle, factor = similarity
    pixel = complex(place.real * width / 2, place.imag * height / 2) * cmath.rect(factor, angle)
    return complex(pixel.real * 2 / width + tx, pixel.imag * 2 / height + ty)


def undone(place: complex, similarity: list[float], height: int, width: int) -> complex:
    tx, ty, angle, factor = similarity
    pixel = complex((place.real - tx) * width / 2, (place.imag - ty) * height / 2) / cmath.rect(factor, angle)
    return complex(pixel.real * 2 / width, pixel.imag * 2 / height)


def matrix_root(rectangle: Tensor, matrix: np.ndarray | None = None) -> np.ndarray:
    """Return the root of the second moments, of the rectangle carried by a matrix if one is given."""
    sx, sy, angle = rectangle[2:].tolist()
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    half_axes = turn @ np.diag([sx, sy])
    moments = half_axes @ half_axes.T
    return np.real(sqrtm(moments if matrix is None else matrix @ moments @ matrix.T))
