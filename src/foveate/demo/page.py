"""Layout and events of the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from foveate.demo import choices
from foveate.demo.choices import Choice, view
from foveate.demo.components import heading, html, own_files, picture, refusal, take_as_given, take_no_addresses
from foveate.demo.inference import Layer, ShownNetwork, fitting, look, seen_pixel
from foveate.demo.render import comparison, escaped, meaning, mechanism, numbers, prediction, scale
from foveate.demo.samples import MAX_UPLOAD, ShownImage, Uploads
from foveate.demo.server import CACHED
from foveate.explain.overlay import zoom_of
from foveate.explain.pictures import answered, enlarged, looked_at

__all__ = ["build_page"]

PANEL, SMALL_PANEL, THUMBNAIL = 448, 256, 96
"""Longest sides of the large pictures, of those side by side, and of the samples, in pixels."""
SHOWN = 10
"""Components that `_Page._show` returns the contents of."""
INTRODUCTION = """
# Where a network looks
Choose an image. The network says what it is, and the colors show where it looked in order to say so, on the grid on
which it works; each cell of the grid is called a *position*.
"""


def build_page(networks: Sequence[ShownNetwork], samples: Sequence[ShownImage], note: str = "") -> gr.Blocks:
    """Lay the page out.

    Args:
        networks: To choose from; at least one.
        samples: Images to choose from; at least one, and the first is shown.
        note: Markdown below the introduction.
    """
    return _Page(networks, samples, note).blocks


class _Page:
    """The components, and the functions that connect them."""

    def __init__(self, networks: Sequence[ShownNetwork], samples: Sequence[ShownImage], note: str) -> None:
        self.networks = {network.name: network for network in networks}
        self.samples, self.uploads = list(samples), Uploads(networks[0].network.meta.intensity_range)
        with gr.Blocks(title="foveate: where a network looks", analytics_enabled=False, delete_cache=CACHED) as blocks:
            self.image = gr.State(None, time_to_live=3600)  # set when a page opens: what is forgotten is not the first
            self.point = gr.State(None)
            gr.Markdown(f"{INTRODUCTION}\n{note}", elem_id="introduction")
            with gr.Row(elem_id="layout"):
                with gr.Column(scale=2, min_width=300, elem_id="choices"):
                    self._lay_out_choices()
                with gr.Column(scale=5, min_width=320, elem_id="result"):
                    self._lay_out_result()
        self.blocks = blocks
        with blocks:
            self._connect()

    def _lay_out_choices(self) -> None:
        heading("Image")
        thumbnails = [enlarged(sample.pixels, THUMBNAIL) for sample in self.samples]
        self.gallery = gr.Gallery(
            thumbnails,
            columns=4,
            format="png",
            allow_preview=False,
            show_label=False,
            interactive=False,
            buttons=[],
            height="auto",
            selected_index=0,
            elem_id="samples",
        )
        self.upload = gr.UploadButton("Upload an image", size="sm", elem_id="upload")
        take_no_addresses(self.upload)
        limit = f"JPEG, PNG, WebP, BMP, TIFF or still GIF, at most {MAX_UPLOAD // 2**20} MB"
        gr.HTML(f"<small>{limit}. The file is deleted once it is read.</small>", padding=False)
        self.message = html("message")
        heading("Network")
        offered = self._choices(self.samples[0])
        names = gr.Radio(offered, value=offered[0][1], show_label=False, container=False, elem_id="network")
        self.network = take_as_given(names)

    def _choices(self, image: ShownImage) -> list[tuple[str, str]]:
        """Return what the networks that fit an image are called, and their names."""
        fit = fitting(list(self.networks.values()), image)
        offered = [(network.name, network.name) for network in fit]
        for names in ([one.title for one in fit], [f"{one.title}, {one.tag}" for one in fit if one.tag]):
            if len(set(names)) == len(fit):  # else several are of one kind
                offered = list(zip(names, [network.name for network in fit], strict=True))
                break
        return offered + ([(choices.ALL, choices.ALL)] if len(fit) > 1 else [])

    def _offer_networks(self, image: ShownImage, name: str) -> tuple[str, Any]:
        """Choose a network that fits an image, of the kind of the one before if there is one, and offer them all."""
        choices = self._choices(image)
        names = [other for _, other in choices]
        kin = name if name in names else next((other for other in names if _kind(other) == _kind(name)), names[0])
        return kin, gr.update(choices=choices, value=kin)

    def _lay_out_result(self) -> None:
        with gr.Column(elem_id="one") as self.one:
            self.sentence = html("sentence")
            with gr.Row(elem_id="pictures"):
                with gr.Column(min_width=250):
                    heading("What it was shown")
                    self.original = picture(enlarged(self.samples[0].pixels, PANEL), "the image", "original")
                with gr.Column(min_width=250):
                    heading("Where it looked")
                    self.attention = picture(None, "where the network looked, drawn over the image", "attention")
                    self.scale = html("scale")
                with gr.Column(min_width=230):
                    heading("What it says")
                    self.prediction = html("prediction")
            self._lay_out_controls()
            with gr.Row():
                with gr.Column(min_width=250):
                    heading("What the colors mean")
                    self.meaning = html("meaning")
                with gr.Column(min_width=250, scale=2):
                    heading("Numbers")
                    self.numbers = html("numbers")
        with gr.Column(visible=False, elem_id="all") as self.all:
            self.comparison = html("comparison")

    def _lay_out_controls(self) -> None:
        with gr.Row(elem_id="controls"):
            self.layer = take_as_given(gr.Radio([], label="Layer: the deeper, the coarser its grid", elem_id="layer"))
            self.radius = take_as_given(gr.Slider(**choices.SLIDER, buttons=[], min_width=260, elem_id="radius"))
            self.reset = gr.Button("Back to the learnt radius", size="sm", min_width=200, scale=0, elem_id="reset")
            self.direction = gr.Radio(
                list(choices.DIRECTIONS), value=choices.FROM, label="Of the pixel that was clicked", elem_id="direction"
            )
            self.part = gr.Radio(list(choices.PARTS), value=choices.BOTH, label="What for", elem_id="part")
            self.head = take_as_given(gr.Dropdown([], label="Head", min_width=120, filterable=False, elem_id="head"))
            self.everywhere = gr.Button("All pixels together", size="sm", min_width=160, scale=0, elem_id="everywhere")

    def _connect(self) -> None:
        """Answer each event once, with all outputs that change: a second round trip would double the wait."""
        controls = [self.layer, self.radius, self.reset, self.direction, self.part, self.head, self.everywhere]
        chosen = [self.network, self.image, self.point, self.layer, self.radius, self.direction, self.part, self.head]
        shown = [self.one, self.all, self.sentence, self.attention, self.scale, self.meaning, self.prediction]
        shown += [self.numbers, self.comparison, self.original]

        def listen(event: Any, fn: Any, outputs: Sequence[Any] = (), first: Sequence[Any] = ()) -> None:
            event(
                fn,
                inputs=[*first, *chosen],
                outputs=[*outputs, *shown],
                show_progress="hidden",
                api_visibility="private",
                trigger_mode="always_last",
            )

        listen(self.blocks.load, self._begin, [self.image, *controls, self.point])
        # By hand, or because another image needs others.
        listen(self.network.change, self._open, [*controls, self.point])
        listen(self.layer.input, self._open_layer, controls[1:])
        image = [self.image, self.point, self.message, self.network]
        listen(self.gallery.select, self._choose_sample, image)
        listen(self.upload.upload, self._take_upload, [*image, self.gallery], first=[self.upload])
        for shown_picture in (self.original, self.attention):
            listen(shown_picture.select, self._choose_point, [self.point])
        listen(self.everywhere.click, self._forget_point, [self.point])
        listen(self.reset.click, self._take_learnt_radius, [self.radius])
        for control in (self.radius, self.direction, self.part, self.head):
            listen(control.input, self._show)

    def _begin(self, *chosen: Any) -> list[Any]:
        """Show the first sample."""
        choice = Choice(*chosen)._replace(image=self.samples[0])
        return [choice.image, *self._open(*choice)]

    def _open(self, *chosen: Any) -> list[Any]:
        """Show the controls that a network has, with the values that it starts from, for all positions."""
        choice = Choice(*chosen)._replace(point=None)
        if choice.network == choices.ALL:
            return [*[gr.update(visible=False)] * 7, None, *self._show(*choice)]
        network = self._network(choice.network)
        count = len(network.layers)
        layers = [(_layer_label(number, count, layer), layer.name) for number, layer in enumerate(network.layers, 1)]
        layer = gr.update(choices=layers, value=network.first, visible=len(layers) > 1)
        others, shown = self._opened(choice._replace(layer=network.first))
        return [layer, *others, None, *shown]

    def _open_layer(self, *chosen: Any) -> list[Any]:
        others, shown = self._opened(Choice(*chosen))
        return [*others, *shown]

    def _opened(self, choice: Choice) -> tuple[list[Any], list[Any]]:
        """Return the controls of the chosen layer, with the values that it starts from, and what is shown then."""
        network = self._network(choice.network)
        layer = network.layer(choice.layer)
        pairs, radial, learnt = bool(layer.heads), layer.radius is not None, choices.learnt_radius(layer)
        label = f"Radius in positions (learnt: {layer.radius or 1:.2f})"
        heads = [choices.EVERY_HEAD, *(f"Head {head + 1}" for head in range(layer.heads))]
        controls = [
            gr.update(label=label, **choices.slider(layer), visible=radial),
            gr.update(visible=radial),
            gr.update(visible=pairs and not radial),
            gr.update(visible=len(layer.parts) > 1),
            gr.update(choices=heads, value=choices.EVERY_HEAD, visible=layer.heads > 1),
            gr.update(visible=(pairs and not radial) or network.has_pixels),
        ]
        return controls, self._show(*choice._replace(radius=learnt, head=choices.EVERY_HEAD))

    def _take_learnt_radius(self, *chosen: Any) -> list[Any]:
        choice = Choice(*chosen)
        learnt = choices.learnt_radius(self._network(choice.network).layer(choice.layer))
        return [learnt, *self._show(*choice._replace(radius=learnt))]

    def _choose_sample(self, event: gr.SelectData, *chosen: Any) -> list[Any]:
        if not isinstance(event.index, int) or not 0 <= event.index < len(self.samples):
            raise refusal("There is no such sample.")
        return self._another_image(self.samples[event.index], Choice(*chosen))

    def _take_upload(self, path: str, *chosen: Any) -> list[Any]:
        if any(Path(path).resolve() == Path(own).resolve() for own in own_files(self.blocks)):
            raise refusal("Only files that were uploaded are taken.")
        try:
            found = self._another_image(self.uploads.read(path), Choice(*chosen))
        except ValueError as error:
            message = f'<p role="alert">{escaped(str(error))}</p>'
            return [*[gr.skip()] * 2, message, *[gr.skip()] * (2 + SHOWN)]
        return [*found[:-SHOWN], gr.update(selected_index=-1), *found[-SHOWN:]]

    def _another_image(self, image: ShownImage, choice: Choice) -> list[Any]:
        name, offered = self._offer_networks(image, choice.network)
        # Where another network is chosen with it, that change will show what comes of both.
        shown = [*[gr.skip()] * (SHOWN - 1), enlarged(image.pixels, PANEL)]
        if name == choice.network:
            shown = self._show(*choice._replace(image=image, point=None))
        return [image, None, "", offered, *shown]

    def _choose_point(self, event: gr.SelectData, *chosen: Any) -> list[Any]:
        choice = Choice(*chosen)
        pixels = choice.kept_image.pixels
        network, zoom = self._network(choice.network), zoom_of(pixels, PANEL)
        x, y = event.index
        # Enlarged, the last row may be one more than its pixels make.
        point = min((float(x) + 0.5) / zoom, pixels.width - 0.5), min((float(y) + 0.5) / zoom, pixels.height - 0.5)
        if network.layer(choice.layer).heads or network.has_pixels:
            try:
                seen_pixel(network.placement(choice.kept_image), point)
            except ValueError as error:
                raise refusal(str(error)) from error
        return [point, *self._show(*choice._replace(point=point))]

    def _forget_point(self, *chosen: Any) -> list[Any]:
        return [None, *self._show(*Choice(*chosen)._replace(point=None))]

    def _network(self, name: str) -> ShownNetwork:
        if name not in self.networks:
            raise refusal("There is no such network.")
        return self.networks[name]

    def _show(self, *chosen: Any) -> list[Any]:
        """Look, and return the contents of what is shown."""
        choice = Choice(*chosen)
        image = choice.kept_image
        if choice.network == choices.ALL:
            looked = [look(network, image) for network in fitting(list(self.networks.values()), image)]
            columns = [
                (name, finding, looked_at(finding, SMALL_PANEL))
                for (name, _), finding in zip(self._choices(image), looked, strict=False)  # behind the last: all
            ]
            page = comparison(enlarged(image.pixels, SMALL_PANEL), image.label, columns)
            return [gr.update(visible=False), gr.update(visible=True), *[gr.skip()] * 6, page, gr.skip()]
        network = self._network(choice.network)
        try:
            finding = look(network, image, view(network.layer(choice.layer), choice))
        except ValueError as error:
            raise refusal(str(error)) from error
        words = mechanism(finding)
        return [
            gr.update(visible=True),
            gr.update(visible=False),
            f"<p><b>{escaped(words.name)}.</b> {escaped(words.seen)}</p>",
            looked_at(finding, PANEL),
            scale(finding),
            meaning(finding),
            prediction(finding),
            numbers(finding),
            gr.skip(),
            answered(finding, PANEL),
        ]


def _kind(name: str) -> str:
    return str(name).partition(".")[0]  # None where nothing is chosen


def _layer_label(number: int, count: int, layer: Layer) -> str:
    return f"{number} of {count}: {layer.size[0]}×{layer.size[1]}"
