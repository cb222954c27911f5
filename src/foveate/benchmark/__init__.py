"""Cost of networks: parameters, FLOPs, time and memory."""

from foveate.benchmark.cost import ModuleCost, NetworkCost, StageCost, network_cost, step_flops
from foveate.benchmark.memory import peak_memory, peak_step_memory
from foveate.benchmark.ratios import Quartiles, paired_ratios, quartiles
from foveate.benchmark.throughput import Rate, images_per_second

__all__ = [
    "ModuleCost",
    "NetworkCost",
    "Quartiles",
    "Rate",
    "StageCost",
    "images_per_second",
    "network_cost",
    "paired_ratios",
    "peak_memory",
    "peak_step_memory",
    "quartiles",
    "step_flops",
]
