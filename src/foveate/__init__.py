"""Spatial attention for image recognition: ExpAtt, GSA and CRAM on PyTorch and timm.

Importing the package registers its networks with timm::

    import foveate, timm
    model = timm.create_model("gsa_resnet50", num_classes=100)
    model = foveate.insert(timm.create_model("resnet50"), foveate.nn.RectangularAttention2d, at=-2)
"""

from foveate import functional, models, nn
from foveate._version import __version__
from foveate.models import insert, resize_relative_tables

__all__ = ["__version__", "functional", "insert", "models", "nn", "resize_relative_tables"]
