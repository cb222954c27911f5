"""`DenseData`: images with masks or boxes, as training takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from foveate.data.dense.joint import AugmentedJoint, Evaluation, JointAugment, Training, check_joint
from foveate.data.divided import Divided
from foveate.data.transforms import TransformConfig

__all__ = ["DenseData"]


@dataclass(frozen=True)
class DenseData(Divided):
    """A set of images with masks or boxes in three parts, with what is suitable for it.

    An item of a split is an RGB image and its target: a mask, an array ``(H, W)`` of bytes that are indices of classes
    or `VOID`, or the `Objects` that it shows.

    Attributes:
        name: What it was opened as.
        classes: Names of the classes; those of objects do not include the background.
        train: Images to train on.
        val: Images to choose by.
        test: Images to report on, or ``None`` where there are none.
        transform: The augmentation, size and normalization suitable for the set.
        max_bad_images: How many images that cannot be read, or whose mask or boxes cannot, are tolerated.
        augment: Replaces the random part of ``transform`` in training: turns an RGB image and its target into others,
            which are then placed as in evaluation. It draws from the generators of Python, NumPy or PyTorch, which are
            seeded per image and epoch.
        target_dims: Dimensions of a batch's targets: 3 of masks, 0 of objects, None where it is not known.
    """

    name: str
    classes: tuple[str, ...]
    train: Any
    val: Any
    test: Any | None
    transform: TransformConfig
    max_bad_images: int = 0
    augment: JointAugment | None = None
    target_dims: int | None = None

    @property
    def has_boxes(self) -> bool:
        """False: images have any number of boxes, and not one by which explanations could be scored."""
        return False

    def _plain(self) -> Evaluation:
        return Evaluation(self.transform)  # whatever cannot be trained with

    def _transforms(self) -> tuple[Any, Any]:
        check_joint(self.transform)
        config = self.transform
        training = Training(config) if self.augment is None else AugmentedJoint(self.augment, config)
        return training, Evaluation(config)
