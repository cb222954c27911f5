"""GSA's module against other implementations, other attention, and the convolution that it replaces."""

from __future__ import annotations

import pkgutil
from functools import partial

from timm.layers.bottleneck_attn import BottleneckAttn
from timm.layers.halo_attn import HaloAttn
from timm.layers.lambda_layer import LambdaLayer
from torch import nn

from foveate.nn import GlobalSelfAttention2d
from studies.bench.dense import SoftmaxAttention2d
from studies.bench.references import global_self_reference
from studies.bench.subject import Case, Subject, Suite

__all__ = ["SUITE", "conv3x3", "gsa", "gsa_pytorch", "softmax_attention"]

HEADS = 8
SHAPES = ((56, 64), (28, 128), (14, 256), (7, 512))
"""Sides and channels in the four stages of a ResNet-50 at 224×224."""
HALO_BLOCK = 7
"""Divides all four sides."""


def gsa(side: int, channels: int) -> Subject:
    """Return ours."""
    build = partial(GlobalSelfAttention2d, channels, num_heads=HEADS, feat_size=side)
    return Subject("GSA", build, global_self_reference())


def gsa_pytorch(side: int, channels: int) -> Subject:
    """Return the one on PyPI, of the same widths."""

    def build() -> nn.Module:
        module = pkgutil.resolve_name("gsa_pytorch:GSA")  # only there for development
        return module(channels, dim_out=channels, dim_key=channels // HEADS, heads=HEADS, rel_pos_length=side)

    return Subject("gsa-pytorch", build)


def conv3x3(channels: int) -> Subject:
    """Return the convolution that attention replaces."""
    return Subject("3×3 convolution", partial(nn.Conv2d, channels, channels, 3, padding=1, bias=False))


def softmax_attention(channels: int, num_heads: int = HEADS) -> Subject:
    """Return N×N attention through PyTorch's own function."""
    return Subject("N×N softmax (SDPA)", partial(SoftmaxAttention2d, channels, num_heads))


def _case(side: int, channels: int) -> Case:
    return Case(
        f"{side}×{side}×{channels}",
        (channels, side, side),
        (
            gsa(side, channels),
            gsa_pytorch(side, channels),
            conv3x3(channels),
            softmax_attention(channels),
            Subject("timm HaloAttn", partial(HaloAttn, channels, num_heads=HEADS, block_size=HALO_BLOCK)),
            Subject("timm LambdaLayer", partial(LambdaLayer, channels, num_heads=HEADS)),
            Subject("timm BottleneckAttn", partial(BottleneckAttn, channels, feat_size=(side, side), num_heads=HEADS)),
        ),
    )


SUITE = Suite(
    "gsa",
    "The GSA module against its peers",
    (
        f"All map the same channels to the same channels, attention with {HEADS} heads. gsa-pytorch has an output "
        "projection, which the paper's module has not.",
        f"HaloAttn sees blocks of {HALO_BLOCK}×{HALO_BLOCK} pixels with 3 around, LambdaLayer a neighbourhood of 9×9, "
        "the convolution one of 3×3; the others see the whole map. SDPA has no positional term.",
    ),
    tuple(_case(side, channels) for side, channels in SHAPES),
)
