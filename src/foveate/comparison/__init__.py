"""Comparing networks: trained under one protocol with paired seeds, side by side if there are cores for it."""

from foveate.comparison.compare import COMPARISON, compare, compare_networks
from foveate.comparison.config import CompareConfig
from foveate.comparison.model_spec import ModelSpec

__all__ = ["COMPARISON", "CompareConfig", "ModelSpec", "compare", "compare_networks"]
