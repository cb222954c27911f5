"""Images with masks or boxes, to learn segmentation and detection on.

`open_segmentation` and `open_detection` open a set by name or folder; a `DenseData` gives its batches:

    data = open_segmentation("digits")
    for images, masks in data.loaders(batch_size=16).train: ...       # masks (B, H, W), VOID where nothing counts
    data = open_detection("digits")
    for images, targets in data.loaders(batch_size=16).train: ...     # a dictionary of tensors for each image
"""

from foveate.data.dense.dense_data import DenseData
from foveate.data.dense.joint import JointAugment, check_joint
from foveate.data.dense.objects import VOID, Objects
from foveate.data.dense.opening import open_detection, open_segmentation
from foveate.data.dense.parts import TargetImages

__all__ = [
    "VOID",
    "DenseData",
    "JointAugment",
    "Objects",
    "TargetImages",
    "check_joint",
    "open_detection",
    "open_segmentation",
]
