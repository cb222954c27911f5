"""Explicit attention against the N×N map that it factorises, and the augmented convolution against a plain one."""

from __future__ import annotations

from functools import partial

from foveate.functional import KERNELS
from foveate.nn import ExpAttConv2d
from studies.bench.dense import DenseExplicit, FactoredExplicit
from studies.bench.references import explicit_conv_reference, explicit_reference
from studies.bench.subject import Case, Subject, Suite
from studies.bench.suites.gsa import conv3x3

__all__ = ["SUITE", "explicit"]

MAPS = ((56, 24), (128, 16))
CONVOLUTIONS = ((28, 128), (14, 256), (7, 512))


def explicit(kernel: str) -> Subject:
    """Return `foveate.functional.explicit_attention` with a kernel."""
    return Subject(f"ExpAtt, {kernel}", partial(FactoredExplicit, kernel), explicit_reference(kernel))


def _against_maps(side: int, channels: int) -> Case:
    return Case(
        f"map {side}×{side}×{channels}",
        (channels, side, side),
        (
            *(explicit(kernel) for kernel in KERNELS if kernel != "laplace_l1"),  # which computes as the Gaussian does
            Subject("N×N softmax(−d²/2r²) V", partial(DenseExplicit, "matmul"), explicit_reference("gaussian")),
            Subject("N×N, SDPA with −d²/2r² as mask", partial(DenseExplicit, "sdpa"), explicit_reference("gaussian")),
        ),
        group="map",
    )


def _against_convolution(side: int, channels: int) -> Case:
    return Case(
        f"convolution {side}×{side}×{channels}",
        (channels, side, side),
        (
            Subject("ExpAttConv2d", partial(ExpAttConv2d, channels, channels), explicit_conv_reference()),
            conv3x3(channels),
        ),
    )


SUITE = Suite(
    "expatt",
    "Explicit attention against N×N attention of the same map",
    (
        "The N×N routes give the numbers of the Gaussian. All routes form their maps in each call, as the radius is a "
        "parameter.",
        "FLOPs leave out FFT, which is nearly all that the kernels other than the Gaussian compute on these maps.",
    ),
    (*(_against_maps(*shape) for shape in MAPS), *(_against_convolution(*shape) for shape in CONVOLUTIONS)),
)
