"""Attention modules: parameters around `foveate.functional`, one mechanism per file."""

from foveate.nn.augmented import AttentionAugmentedConv2d
from foveate.nn.explicit import ExpAttConv2d, ExplicitAttention2d
from foveate.nn.global_self import GlobalSelfAttention2d
from foveate.nn.positionwise import PositionwiseAttention2d
from foveate.nn.rectangular import RectangularAttention2d
from foveate.nn.spatial_attention import GatedAttention, Observation, PairwiseAttention, SpatialAttention
from foveate.nn.weights import PairwiseWeights

__all__ = [
    "AttentionAugmentedConv2d",
    "ExpAttConv2d",
    "ExplicitAttention2d",
    "GatedAttention",
    "GlobalSelfAttention2d",
    "Observation",
    "PairwiseAttention",
    "PairwiseWeights",
    "PositionwiseAttention2d",
    "RectangularAttention2d",
    "SpatialAttention",
]
