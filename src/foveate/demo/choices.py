"""Values of the page's controls, and the request to a network that they make."""

from __future__ import annotations

from typing import Any, NamedTuple

from foveate.demo.components import refusal
from foveate.demo.inference import Layer, View
from foveate.demo.samples import ShownImage

__all__ = [
    "ALL",
    "BOTH",
    "DIRECTIONS",
    "EVERY_HEAD",
    "FROM",
    "PARTS",
    "SLIDER",
    "Choice",
    "learnt_radius",
    "slider",
    "view",
]

ALL = "All side by side"
EVERY_HEAD = "All heads"
SLIDER: dict[str, Any] = {"minimum": 0.05, "maximum": 8, "step": 0.01}
"""That of the radius, until a layer is chosen."""
BOTH, FROM = "Both", "What the pixel takes"
PARTS = {BOTH: "both", "What is there": "content", "Where it is": "positional"}
DIRECTIONS = {FROM: "from", "Who takes from the pixel": "to"}


class Choice(NamedTuple):
    """Values of the controls."""

    network: str
    image: ShownImage | None
    point: tuple[float, float] | None
    layer: str | None
    radius: float
    direction: str
    part: str
    head: str | None

    @property
    def kept_image(self) -> ShownImage:
        """The image, unless it was chosen so long ago that it is no longer kept."""
        if self.image is None:
            raise refusal("This image is no longer kept here. Choose it again.")
        return self.image


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
    return max(round(1 if layer.radius is None else layer.radius, 2), SLIDER["step"])


def slider(layer: Layer) -> dict[str, Any]:
    """Return the ends of the slider and its first value, the learnt radius, which may be larger than the map."""
    learnt = learnt_radius(layer)
    return {"minimum": min(SLIDER["minimum"], learnt), "maximum": max(*layer.size, learnt), "value": learnt}
