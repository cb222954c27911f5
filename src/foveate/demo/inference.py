"""Inference for the page: one network's prediction for one image, and where that network looked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from foveate.data import Placement, placement
from foveate.data.given import slugs
from foveate.demo.samples import ShownImage
from foveate.explain import AttentionRecord, explain, shown_module
from foveate.explain.finding import Finding
from foveate.models import shipped
from foveate.models.inspection import attention_modules, private_copy
from foveate.models.packaged import PACKAGED
from foveate.models.shipped import TRAININGS
from foveate.trained import TrainedNetwork, build, load, told_apart

__all__ = ["Layer", "ShownNetwork", "View", "fitting", "knows_flowers", "load_shown", "look", "seen_pixel"]


@dataclass(frozen=True)
class Layer:
    """An attention module, or the layer of Grad-CAM, with the controls that apply to it."""

    name: str
    kind: str
    """Its class, or ``GradCAM``."""
    title: str
    """Names the mechanism for readers."""
    size: tuple[int, int]
    """Rows and columns of its map."""
    heads: int = 0
    """0 where it does not weigh one position for another."""
    parts: tuple[str, ...] = ()
    radius: float | None = None
    """The learnt one, in positions of the map."""


@dataclass(frozen=True, eq=False)
class ShownNetwork:
    """A network of the page. It is never changed: `look` works on a copy, so that requests may run at the same time."""

    network: TrainedNetwork
    name: str
    """What the page calls it; no path of the machine."""
    layers: tuple[Layer, ...]
    first: str
    """Name of the layer that is shown first."""

    @property
    def attends(self) -> bool:
        """Whether it has attention; else Grad-CAM shows where a classifier looks, and of others nothing does."""
        return self.layer(self.first).kind != "GradCAM"

    @property
    def has_pixels(self) -> bool:
        """Whether it says something of each pixel or of objects, rather than of the image."""
        return not self.network.names_images

    @property
    def title(self) -> str:
        """Its mechanism, for readers."""
        return self.layer(self.first).title

    @property
    def tag(self) -> str:
        """What it was trained on, as its name says; empty if it does not."""
        return self.name.partition(".")[2]

    def placement(self, image: ShownImage) -> Placement:
        """Return where ``image`` ends up in the network's input."""
        return placement(self.network.transform, (image.pixels.height, image.pixels.width))

    def tensor(self, image: ShownImage) -> Tensor:
        """Return ``image`` as the network takes it, ``(1, 3, H, W)``."""
        return self.network.prepare(image.pixels)

    def layer(self, name: str | None) -> Layer:
        """Return the layer called ``name``; the one shown first if there is none."""
        found = {layer.name: layer for layer in self.layers}
        return found.get(name or "", found[self.first] if self.first in found else self.layers[0])


_LAST: WeakKeyDictionary[ShownImage, tuple[tuple[ShownNetwork, str, float | None], Finding]] = WeakKeyDictionary()
"""Last result for each image, reused when only the pixel changes."""


@dataclass(frozen=True)
class View:
    """A request: which layer of a network is shown, and how."""

    layer: str | None = None
    point: tuple[float, float] | None = None
    """x and y in pixels of the image: the position whose attention is shown; none, all (of ExpAtt, the middle)."""
    direction: str = "from"
    part: str = "both"
    head: int | None = None
    radius: float | None = None
    """Radius of explicit attention in place of the learned one."""


def load_shown(checkpoints: Sequence[str]) -> list[ShownNetwork]:
    """Load the networks in ``checkpoints``, or those that come with the package, on the CPU.

    Those are of flowers, where the extra ``photos`` is installed, of digits and of photographs; which of them are
    offered depends on the image, see `fitting`.

    Raises:
        ValueError: As `load`; or they were trained with different ``intensity_range``, and an uploaded image is read
            once.
    """
    flowers = shipped("flowers") if knows_flowers() else ()
    names = [*flowers, *reversed(shipped("digits")), *reversed(shipped("photographs"))]  # ExpAtt, GSA last
    networks = told_apart(map(load, checkpoints) if checkpoints else [build(name, pretrained=True) for name in names])
    if len({tuple(network.meta.intensity_range or ()) for network in networks}) > 1:
        raise ValueError("checkpoint: these networks were trained with different intensity_range; show each on its own")
    called = slugs(network.meta.model for network in networks)
    return [_shown(network, name) for network, name in zip(networks, called, strict=True)]


def knows_flowers() -> bool:
    """Tell whether the network of flowers can be loaded: whether the weights that it is made from are installed."""
    backbone = TRAININGS["flowers"].backbone
    return backbone is not None and PACKAGED[backbone].is_installed()


def fitting(networks: Sequence[ShownNetwork], image: ShownImage) -> list[ShownNetwork]:
    """Return the networks that were made for such an image; all, if there is none: what they say is then warned of.

    They know its class where that is known, and it does not look plainly unlike what they were trained on.
    """
    known = [one for one in networks if image.label is None or image.label in one.network.meta.classes]
    size = (image.pixels.height, image.pixels.width)
    return [one for one in known if not one.network.unlike(one.tensor(image), size)] or known or list(networks)


def look(shown: ShownNetwork, image: ShownImage, view: View | None = None) -> Finding:
    """Return what a network makes of an image; its one record is that of ``view``.

    Of a network that is no classifier, and has no attention, there is no record.

    Raises:
        ValueError: The view asks for what the network does not have, or for a pixel that it does not see.
    """
    view = view or View()
    layer = shown.layer(view.layer)
    finding = _explained(shown, image, layer, view.radius)
    if shown.has_pixels and view.point is not None:
        seen_pixel(finding.placement, view.point)
        finding = dataclasses.replace(finding, query=(int(view.point[1]), int(view.point[0])))
    if not layer.heads:
        return finding
    query = None
    if view.point is not None:
        query = seen_pixel(finding.placement, view.point)
    elif layer.radius is not None:
        query = finding.placement.middle((image.pixels.height, image.pixels.width))
    (record,) = finding.records
    return dataclasses.replace(
        finding, records=[record.queried(query, direction=view.direction, part=view.part, head=view.head)]
    )


def _explained(shown: ShownNetwork, image: ShownImage, layer: Layer, radius: float | None) -> Finding:
    """Return what a network makes of an image, of one layer; what was asked of the image last is not computed again."""
    asked = shown, layer.name, radius
    last = _LAST.get(image)
    if last is not None and last[0] == asked:
        return last[1]
    network = shown.network
    if radius is not None:
        network = dataclasses.replace(network, network=private_copy(network.network))
        _set_radius(network.network, layer, radius)
    method = "auto" if shown.attends else "gradcam"
    label = image.label if image.label in network.classes else None
    finding = network.explain(image.pixels, names=[layer.name] if layer.name else [], method=method, label=label)
    finding = dataclasses.replace(finding, records=finding.records[-1:])  # of a module called several times, the last
    _LAST[image] = asked, finding
    return finding


def seen_pixel(place: Placement, point: tuple[float, float]) -> tuple[int, int]:
    """Return row and column of the input's pixel in which ``point``, x and y in pixels of the image, ends up.

    Raises:
        ValueError: The network does not see it; the message is for the person who chose it.
    """
    pixel = place.pixel(point)
    if pixel is None:
        raise ValueError("That pixel is cropped away before the network sees the image; choose one nearer the middle.")
    return pixel


def _set_radius(model: nn.Module, layer: Layer, radius: float) -> None:
    """Give the explicit attention ``layer`` of a copy another radius, in positions of its map."""
    if layer.radius is None:
        raise ValueError(f"{layer.name} has no radius; choose a layer with explicit attention")
    module: Any = model.get_submodule(layer.name)
    module.radius = radius


def _shown(network: TrainedNetwork, name: str) -> ShownNetwork:
    """Find out what can be asked of ``network``."""
    model = network.network.requires_grad_(False)  # Grad-CAM follows the image's gradient; that of weights nobody needs
    image = torch.zeros(1, 3, *network.meta.img_size)
    attends = bool(attention_modules(model))
    layers: tuple[Layer, ...] = (Layer("", "", "Without attention", (0, 0)),)
    if attends or network.names_images:
        found = {record.name: record for record in explain(model, image).records}  # the last of each
        layers = tuple(map(_layer, found.values()))
    first = shown_module(model, image) if attends else layers[0].name
    return ShownNetwork(network, name, layers, first)


def _layer(record: AttentionRecord) -> Layer:
    height, width = record.map.shape[1:]
    heads = record.weights.heads if record.weights is not None else 0
    parts = record.weights.parts if record.weights is not None else ()
    return Layer(record.name, record.kind, record.title, (height, width), heads, parts, record.radius)
