"""Names of classes in words."""

from __future__ import annotations

from functools import lru_cache

from timm.data import ImageNetInfo

__all__ = ["class_name"]


def class_name(name: str) -> str:
    """Return a class in words: of ImageNet those of its synset (``n02123045``), of other sets the name itself."""
    return _synsets().get(name, name)


@lru_cache
def _synsets() -> dict[str, str]:
    imagenet = ImageNetInfo()
    return {name: imagenet.label_name_to_description(name).partition(",")[0] for name in imagenet.label_names()}
