"""Explaining one image of any size with a trained network."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from foveate import _checks
from foveate.data import placement
from foveate.explain import explain
from foveate.explain.finding import Finding
from foveate.models.inspection import attention_modules
from foveate.trained.network import Picture, TrainedNetwork

__all__ = ["check_explainable", "explain_image", "seen_pixel"]


def explain_image(
    trained: TrainedNetwork,
    image: Picture,
    *,
    query: tuple[int, int] | None = None,
    names: Sequence[str] = (),
    method: str = "auto",
    label: str | None = None,
) -> Finding:
    """Return what `TrainedNetwork.explain` returns."""
    name, pixels = trained.opened(image)
    size = (pixels.height, pixels.width)
    asked = None if query is None else seen_pixel(trained, query, size, name=name)
    tensor = trained.tensor([pixels])
    explanation = explain(trained.network, tensor, method=method, names=_names(trained, method, names))
    records = list(explanation.records)
    if not names:
        records = list({tuple(record.map.shape): record for record in records}.values())
    middle = (tensor.shape[2] // 2, tensor.shape[3] // 2)
    for index, record in enumerate(records):
        position = middle if asked is None and record.radius is not None else asked
        if record.weights is not None and position is not None:
            records[index] = record.queried(position)
    return Finding(
        name=name,
        image=pixels,
        network=trained.name,
        source=trained.source,
        classes=trained.classes,
        explanation=explanation,
        records=records,
        placement=placement(trained.transform, size),
        label=label,
        unlike=trained.meta.unlike(tensor),
    )


def seen_pixel(
    trained: TrainedNetwork, query: tuple[int, int], size: tuple[int, int], *, name: str = "the image"
) -> tuple[int, int]:
    """Return row and column of the input's pixel where the middle of the pixel ``query`` of an image ends up.

    Raises:
        ValueError: The pixel lies outside of the image, whose height and width are ``size``, or is cropped away.
    """
    row, column = _checks.pair("query", query, minimum=0)
    if row >= size[0] or column >= size[1]:
        raise ValueError(f"query: {[row, column]} lies outside of {name}, {size[0]}×{size[1]} pixels")
    pixel = placement(trained.transform, size).pixel([column + 0.5, row + 0.5])
    if pixel is None:
        raise ValueError(f"query: {[row, column]} of {name} is cropped away before {trained.name} sees the image")
    return pixel


def check_explainable(trained: TrainedNetwork, method: str = "auto", names: Sequence[str] = ()) -> None:
    """Raise a `ValueError` unless an image of the size of those of the training can be explained in this way."""
    _names(trained, method, names)
    if method == "attention" and not attention_modules(trained.network):
        raise ValueError(f"method: {trained.name} has no attention module; leave method=auto, or use gradcam")
    if _by_attention(trained, method):
        return
    height, width = trained.meta.img_size
    try:
        explain_image(trained, Image.new("RGB", (width, height)), method=method, names=names)
    except ValueError as error:
        raise ValueError(f"method: {trained.name} cannot be explained: {error}") from error


def _by_attention(trained: TrainedNetwork, method: str) -> bool:
    return method == "attention" or (method == "auto" and bool(attention_modules(trained.network)))


def _names(trained: TrainedNetwork, method: str, names: Sequence[str]) -> list[str] | None:
    """Return those of the modules asked for that it has; None if none are named."""
    if not names or list(names) == ["all"]:
        return None
    own = [name for name, _ in trained.network.named_modules() if name]
    if _by_attention(trained, method):
        own = list(attention_modules(trained.network))
    found = [name for name in names if name in own]
    if not found:
        known = _checks.suggestion(names[0], own) or f"; it has {', '.join(own[:20])}"
        raise ValueError(f"layers: {trained.name} has no layer {' or '.join(map(repr, names))}{known}")
    return found
