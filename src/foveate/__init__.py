"""Spatial attention for image recognition: ExpAtt, GSA and CRAM on PyTorch and timm.

Importing the package registers its networks with timm::

    import foveate, timm
    model = timm.create_model("gsa_resnet50", num_classes=100)
    model = foveate.insert(timm.create_model("resnet50"), foveate.nn.RectangularAttention2d, at=-2)
    model = foveate.replace(timm.create_model("resnet50"), foveate.nn.GlobalSelfAttention2d, at=-1)
    explanation = foveate.explain(model, images)
    foveate.load("cram_resnet_tiny.digits").predict("digit.png")
    foveate.train("gsa_resnet26", "photographs", epochs=30, out="runs/mine")

`foveate.explain`, `foveate.load`, `foveate.train`, `foveate.evaluate`, `foveate.compare` and their classes are imported
when they are first asked for: they need what the extras "explain" and "train" bring.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from foveate import functional, models, nn
from foveate._version import __version__
from foveate.functional import plain_operators
from foveate.models import checkpoint_filter_fn, insert, replace, resize_relative_tables, scale_reach

if TYPE_CHECKING:
    from foveate.comparison import CompareConfig
    from foveate.comparison.compare import compare
    from foveate.explain import ExplainPackage
    from foveate.trained import TrainedNetwork, evaluate, load
    from foveate.training import TrainConfig, train

    explain: ExplainPackage

LAZY = {
    "CompareConfig": "foveate.comparison",
    "TrainConfig": "foveate.training",
    "TrainedNetwork": "foveate.trained",
    "compare": "foveate.comparison",
    "evaluate": "foveate.trained",
    "load": "foveate.trained",
    "train": "foveate.training",
}

__all__ = [
    "CompareConfig",
    "TrainConfig",
    "TrainedNetwork",
    "__version__",
    "checkpoint_filter_fn",
    "compare",
    "evaluate",
    "functional",
    "insert",
    "load",
    "models",
    "nn",
    "plain_operators",
    "replace",
    "resize_relative_tables",
    "scale_reach",
    "train",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "explain"})


def __getattr__(name: str) -> Any:
    if name == "explain":
        return importlib.import_module("foveate.explain")
    if name in LAZY:
        return getattr(importlib.import_module(LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
