"""Explaining one image of any size with a trained network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from foveate import _checks
from foveate.explain import Explanation, explain
from foveate.explain.asked import Box, box_inside
from foveate.explain.finding import Finding
from foveate.models.inspection import attention_modules, evaluating
from foveate.trained.network import Picture, TrainedNetwork

__all__ = ["check_explainable", "explain_image", "modules_shown", "seen_pixel", "seen_place"]


def explain_image(
    trained: TrainedNetwork,
    image: Picture,
    *,
    query: tuple[int, int] | None = None,
    box: Sequence[float] | None = None,
    names: Sequence[str] = (),
    method: str = "auto",
    label: str | None = None,
) -> Finding:
    """Return what `TrainedNetwork.explain` returns."""
    _check_method(trained, method)
    name, pixels = trained.opened(image)
    size = (pixels.height, pixels.width)
    query = None if query is None else _checks.pair("query", query, minimum=0)
    asked, seen_box = seen_place(trained, query, box, size, name=name)
    tensor = trained.tensor([pixels])
    explanation = _explanation(trained, tensor, method, _names(trained, method, names))
    spanned = trained.seen_size((tensor.shape[2], tensor.shape[3]))
    records = list(explanation.records)
    if not names:
        records = list({tuple(record.map.shape): record for record in records}.values())
    middle = trained.placement(size).middle(size)
    for index, record in enumerate(records):
        position = middle if asked is None and record.radius is not None else asked
        if record.weights is not None and seen_box is not None:
            records[index] = record.queried_box(seen_box)
        elif record.weights is not None and position is not None:
            records[index] = record.queried(position)
    return Finding(
        name=name,
        image=pixels,
        network=trained.name,
        source=trained.source,
        classes=trained.classes,
        explanation=explanation,
        records=records,
        placement=trained.placement(size)._replace(input_size=spanned),
        label=label,
        answer=trained.answer(pixels, explanation.output),
        query=query,
        box=None if seen_box is None else box_inside(box or (), size),
        unlike=trained.unlike(tensor, size),
    )


def _explanation(trained: TrainedNetwork, tensor: Tensor, method: str, names: list[str] | None) -> Explanation:
    if trained.names_images or attention_modules(trained.network):
        return explain(trained.network, tensor, method=method, names=names)
    with evaluating(trained.network), torch.no_grad():
        return Explanation(None, None, (), trained.network(tensor))


def seen_place(
    trained: TrainedNetwork,
    query: tuple[int, int] | None,
    box: Sequence[float] | None,
    size: tuple[int, int],
    *,
    name: str = "the image",
) -> tuple[tuple[int, int] | None, Box | None]:
    """Return the pixel of the input where a pixel of an image ends up, or the box where a box does.

    Raises:
        ValueError: Both are asked for, or as `seen_pixel` for the pixel; the box has no area, reaches out of the image,
            whose height and width are ``size``, or is cropped away.
    """
    if query is not None and box is not None:
        raise ValueError(f"query={query} and box={box} ask for the attention of two places; give one of them")
    if query is not None:
        return seen_pixel(trained, query, size, name=name), None
    if box is None:
        return None, None
    x_min, y_min, x_max, y_max = trained.placement(size).box_to_input(box_inside(box, size)).tolist()
    if not (x_min < x_max and y_min < y_max):
        raise ValueError(f"box: {list(box)} of {name} is cropped away before {trained.name} sees the image")
    return None, (x_min, y_min, x_max, y_max)


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
    pixel = trained.placement(size).pixel([column + 0.5, row + 0.5])
    if pixel is None:
        raise ValueError(f"query: {[row, column]} of {name} is cropped away before {trained.name} sees the image")
    return pixel


def check_explainable(trained: TrainedNetwork, method: str = "auto", names: Sequence[str] = ()) -> None:
    """Raise a `ValueError` unless an image of the size of those of the training can be explained in this way."""
    _names(trained, method, names)
    if method == "attention" and not attention_modules(trained.network):
        raise ValueError(f"method: {trained.name} has no attention module; leave method=auto, or use gradcam")
    _check_method(trained, method)
    if not trained.names_images or _by_attention(trained, method):
        return
    height, width = trained.meta.img_size
    try:
        explain_image(trained, Image.new("RGB", (width, height)), method=method, names=names)
    except ValueError as error:
        raise ValueError(f"method: {trained.name} cannot be explained: {error}") from error


def _check_method(trained: TrainedNetwork, method: str) -> None:
    if method == "gradcam" and not trained.names_images:
        raise ValueError(
            f"method: Grad-CAM explains classifiers, and {trained.name} was trained for {trained.meta.task}; leave "
            "method=auto, which shows attention where there is any"
        )


def _by_attention(trained: TrainedNetwork, method: str) -> bool:
    return method == "attention" or (method == "auto" and bool(attention_modules(trained.network)))


def _names(trained: TrainedNetwork, method: str, names: Sequence[str]) -> list[str] | None:
    """Return those of the modules asked for that it has; None if none are named."""
    if not names or list(names) == ["all"]:
        return None
    own = modules_shown(trained, method)
    if missing := [name for name in names if name not in own]:
        known = _checks.suggestion(missing[0], own) or f"; it has {', '.join(own[:20]) or 'none with attention'}"
        raise ValueError(f"layers: {trained.name} has no layer {' or '.join(map(repr, missing))}{known}")
    return list(names)


def modules_shown(trained: TrainedNetwork, method: str = "auto") -> list[str]:
    """Return the names of the modules that can be shown: those with attention; of a classifier by Grad-CAM, all."""
    if _by_attention(trained, method) or not trained.names_images:
        return list(attention_modules(trained.network))
    return [name for name, _ in trained.network.named_modules() if name]
