"""Cluttered digits with the mask and the box of the digit: fragments are background."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from foveate.data.dense.objects import Objects
from foveate.data.digits import ClutteredDigits
from foveate.data.drawing import INK

__all__ = ["BACKGROUND", "DigitMasks", "DigitObjects"]

BACKGROUND = "background"


class _Digits(Dataset[tuple[Image.Image, Any]]):
    def __init__(self, digits: ClutteredDigits) -> None:
        self.digits = digits

    def __len__(self) -> int:
        return len(self.digits)

    def ink(self, index: int) -> np.ndarray:
        """Return where the digit has ink, ``(size, size)`` bool, whatever lies over it."""
        drawn = self.digits.digit(index).drawn
        ink = np.zeros((self.digits.size, self.digits.size), bool)
        height, width = drawn.pixels.shape
        ink[drawn.y : drawn.y + height, drawn.x : drawn.x + width] = drawn.pixels >= INK
        return ink


class DigitMasks(_Digits):
    """Canvases with masks: class 0 is the background, class ``1 + d`` the ink of the digit ``d``."""

    def __getitem__(self, index: int) -> tuple[Image.Image, np.ndarray]:
        image, label = self.digits[index]
        return image, self.ink(index).astype(np.uint8) * (label + 1)


class DigitObjects(_Digits):
    """Canvases with one object each: the box of the digit's ink, and its mask."""

    def __getitem__(self, index: int) -> tuple[Image.Image, Objects]:
        image, label = self.digits[index]
        found = Objects.of([self.digits.boxes(index)], [label])
        return image, Objects(found.boxes, found.labels, found.ignored, torch.from_numpy(self.ink(index))[None])
