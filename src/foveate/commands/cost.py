"""``foveate cost``: parameters and FLOPs of networks, of their attention, and of their modules."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Literal

from foveate import _checks
from foveate._option import Option
from foveate.benchmark import ModuleCost, NetworkCost, network_cost
from foveate.models.dense import DECODERS, DETECTORS, build_with_head
from foveate.report.text import columns

__all__ = ["CostConfig", "run"]

HEADS = {"classification": "", "segmentation": "decoder", "detection": "detector"}
"""The setting that says what stands on a network, by its task."""


@dataclass(kw_only=True)
class CostConfig:
    """Count the parameters and FLOPs of networks for one image; 1 multiply-add = 2 FLOPs.

    Attributes:
        models: Names of the networks, ours or any other of timm's.
        img_size: Height and width of the image; one number, or [height, width].
        num_classes: Classes of the network's head; of a detector, without the background.
        in_chans: Channels of the image.
        model_args: Keywords for the networks, as in {stem: small}.
        task: classification, segmentation or detection: what stands on the networks.
        decoder: Of segmentation: unet, unetplusplus, fpn, deeplabv3plus, segformer or upernet.
        detector: Of detection: fasterrcnn, maskrcnn, retinanet or fcos.
        head_args: Keywords of the decoder or the detector, as in {decoder_channels: [64, 32, 16]}.
        depth: Also list the modules down to this depth: 1 for stages, 2 for blocks, 3 for layers.
        json: Print JSON, every module included, in place of tables.
    """

    models: list[str] = field(default_factory=list)
    img_size: int | tuple[int, int] = 224
    num_classes: int = 1000
    in_chans: int = 3
    model_args: dict[str, Option] = field(default_factory=dict)
    task: Literal["classification", "segmentation", "detection"] = "classification"
    decoder: str = "unet"
    detector: str = "fasterrcnn"
    head_args: dict[str, Option] = field(default_factory=dict)
    depth: int = 0
    json: bool = False

    def check(self) -> None:
        """Raise a `ValueError` that names the first setting that is out of its range."""
        if not self.models:
            raise ValueError("no networks given; name them, as in `foveate cost resnet50 gsa_resnet50`")
        _checks.pair("img_size", self.img_size)
        _checks.integer("num_classes", self.num_classes, minimum=0)
        _checks.integer("in_chans", self.in_chans)
        _checks.integer("depth", self.depth, minimum=0)
        _checks.one_of("task", self.task, HEADS)
        for name, known in {"decoder": DECODERS, "detector": DETECTORS}.items():
            _checks.one_of(name, getattr(self, name), tuple(known))
            if HEADS[self.task] != name and getattr(self, name) != getattr(CostConfig, name):
                raise ValueError(f"{name} means nothing to task={self.task}; give its task, or leave it out")


def run(config: CostConfig) -> dict[str, NetworkCost]:
    """Print what the networks cost; return it by the network's name.

    A network whose parameters depend on the size of the image (relative tables, position embeddings) is built for
    ``img_size``.

    Raises:
        ValueError: A setting is wrong, there is no such network, or it does not take such an image.
    """
    config.check()
    costs = {name: _cost(config, name) for name in config.models}
    if config.json:
        print(json.dumps({name: dataclasses.asdict(cost) for name, cost in costs.items()}, indent=1))
        return costs
    height, width = _checks.pair("img_size", config.img_size)
    head = f" with {getattr(config, HEADS[config.task])}" if HEADS[config.task] else ""
    print(f"One image of {config.in_chans}×{height}×{width}, inference{head}; 1 multiply-add = 2 FLOPs.\n")
    print(_totals(costs))
    if any(cost.attention for cost in costs.values()):
        print(f"\nAttention by stage, without the 3×3 convolution that it augments:\n\n{_attention(costs)}")
    if config.depth:
        print(*(f"\n{_modules(name, cost, config.depth)}" for name, cost in costs.items()), sep="\n")
    return costs


def _cost(config: CostConfig, name: str) -> NetworkCost:
    height, width = _checks.pair("img_size", config.img_size)
    network, _ = build_with_head(
        name,
        getattr(config, HEADS[config.task]) if HEADS[config.task] else "",
        num_classes=config.num_classes,
        in_chans=config.in_chans,
        img_size=(height, width),
        model_args=config.model_args,
        head_args=config.head_args,
    )
    return network_cost(network, (config.in_chans, height, width))


def _totals(costs: dict[str, NetworkCost]) -> str:
    """Return the table of the networks, compared to the first where there are several."""
    header = ["network", "parameters (M)", "GFLOPs"]
    rows = [[name, f"{cost.parameters / 1e6:.3f}", f"{cost.flops / 1e9:.3f}"] for name, cost in costs.items()]
    if len(costs) > 1:
        first = next(iter(costs.values()))
        header = ["network", "parameters (M)", "to first", "GFLOPs", "to first"]
        rows = [
            [*row[:2], _relative(cost.parameters, first.parameters), row[2], _relative(cost.flops, first.flops)]
            for row, cost in zip(rows, costs.values(), strict=True)
        ]
    return columns(header, rows)


def _relative(cost: int, first: int) -> str:
    return f"{cost / first - 1:+.1%}"


def _attention(costs: dict[str, NetworkCost]) -> str:
    """Return the table of attention stage by stage, and its sum where there are several stages."""
    rows = []
    for name, cost in costs.items():
        stages = [
            (stage.stage, f"{stage.modules} × {', '.join(stage.kinds)}", stage.parameters, stage.flops)
            for stage in cost.attention
        ]
        if len(stages) > 1:
            stages.append(("all", "", sum(stage[2] for stage in stages), sum(stage[3] for stage in stages)))
        for stage, modules, parameters, flops in stages:
            figures = [f"{parameters / 1e3:,.1f}", f"{flops / 1e6:,.1f}", f"{flops / cost.flops:.1%}"]
            rows.append([name if stage == stages[0][0] else "", stage, modules, *figures])
    header = ["network", "stage", "modules", "parameters (k)", "MFLOPs", "of the network's"]
    return columns(header, rows, left=3)


def _modules(name: str, cost: NetworkCost, depth: int) -> str:
    """Return the tree of a network's modules down to ``depth``."""
    rows = [_module(name, row) for row in cost.modules if row.depth <= depth]
    return columns(["module", "class", "output", "parameters (k)", "MFLOPs"], rows, left=3)


def _module(network: str, row: ModuleCost) -> list[str]:
    label = "  " * row.depth + row.name.rpartition(".")[2] if row.name else network
    shape = "" if row.output_shape is None else "×".join(map(str, row.output_shape))
    return [label, row.kind, shape, f"{row.parameters / 1e3:,.1f}", f"{row.flops / 1e6:,.1f}"]
