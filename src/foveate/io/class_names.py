"""Names of classes in words."""

from __future__ import annotations

import re
from functools import lru_cache

from timm.data import ImageNetInfo

__all__ = ["class_name"]

SYNSET = re.compile(r"n\d{8}")
"""Name of a class of ImageNet."""


def class_name(name: str) -> str:
    """Return a class in words: of ImageNet those of its synset (``n02123045``), of other sets the name itself."""
    return _synsets().get(name, name) if SYNSET.fullmatch(name) else name


@lru_cache
def _synsets() -> dict[str, str]:
    subsets = map(ImageNetInfo, ("imagenet-21k-goog", "imagenet-1k"))  # the larger one lacks some of the smaller
    return {
        name: imagenet.label_name_to_description(name).partition(",")[0]
        for imagenet in subsets
        for name in imagenet.label_names()
    }
