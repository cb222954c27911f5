"""What a network costs: parameters, FLOPs, time and memory."""

from foveate.benchmark.cost import ModuleCost, NetworkCost, StageCost, network_cost
from foveate.benchmark.memory import peak_step_memory
from foveate.benchmark.throughput import Rate, images_per_second

__all__ = [
    "ModuleCost",
    "NetworkCost",
    "Rate",
    "StageCost",
    "images_per_second",
    "network_cost",
    "peak_step_memory",
]
