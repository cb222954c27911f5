"""Files that are whole or absent, checkpoints, and model cards."""

from foveate.io.appearance import range_of
from foveate.io.card import ModelCard, NetworkMeta, read_card
from foveate.io.checkpoint import load_network, load_weights, save_network, save_with_card

__all__ = [
    "ModelCard",
    "NetworkMeta",
    "load_network",
    "load_weights",
    "range_of",
    "read_card",
    "save_network",
    "save_with_card",
]
