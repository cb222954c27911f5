"""Values of the page's controls, and the request to a network that they make."""

from __future__ import annotations

from typing import NamedTuple

from foveate.demo.inference import Layer, View
from foveate.demo.samples import ShownImage

__all__ = ["ALL", "BOTH", "DIRECTIONS", "EVERY_HEAD", "FROM", "PARTS", "Choice", "learnt_radius", "view"]

ALL = "All side by side"
EVERY_HEAD = "All heads"
BOTH, FROM = "Both", "What the pixel takes"
PARTS = {BOTH: "both", "What is there": "content", "Where it is": "positional"}
DIRECTIONS = {FROM: "from", "Who takes from the pixel": "to"}


class Choice(NamedTuple):
    """Values of the controls."""

    network: str
    image: ShownImage
    point: tuple[float, float] | None
    layer: str | None
    radius: float
    direction: str
    part: str
    head: str | None


def view(layer: Layer, choice: Choice) -> View:
    """Translate what the controls say; those that a layer does not have are hidden and count for nothing."""
    head = None if layer.heads < 2 or choice.head in (None, EVERY_HEAD) else choice.head
    return View(
        layer=layer.name,
        point=choice.point,
        direction=DIRECTIONS[choice.direction] if layer.radius is None else "from",
        part=PARTS[choice.part] if len(layer.parts) > 1 else "both",
        head=None if head is None else int(head.removeprefix("Head ")) - 1,
        radius=None if layer.radius is None or choice.radius == learnt_radius(layer) else choice.radius,
    )


def learnt_radius(layer: Layer) -> float:
    """Return the radius that a layer starts from, as the slider has it."""
    return round(layer.radius or 1, 2)
