"""Entry points of `torch.hub`: ``torch.hub.load("<owner>/foveate", "gsa_resnet50", num_classes=10)``."""

import sys
from functools import partial as _partial
from pathlib import Path as _Path

dependencies = ["torch", "torchvision", "timm"]

sys.path.insert(0, str(_Path(__file__).parent / "src"))

import timm  # noqa: E402

import foveate  # noqa: E402

for _name in foveate.models.registered():
    globals()[_name] = _partial(timm.create_model, _name)
