"""Parts that the page is made of, and the pictures on it."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.exceptions import InvalidPathError
from PIL import Image

from foveate.explain import overlay
from foveate.explain.finding import Finding

__all__ = ["drawn", "enlarged", "heading", "html", "picture", "refusal", "take_no_addresses", "zoom_of"]


def heading(text: str) -> None:
    """Write a heading."""
    gr.HTML(f"<h2>{text}</h2>", padding=False)


def html(name: str) -> gr.HTML:
    """Leave a place for HTML."""
    return gr.HTML("", padding=False, elem_id=name)


def take_no_addresses(component: gr.UploadButton) -> None:
    """Let a component only take files that were uploaded; gradio would fetch the address of another server."""
    take = component.async_move_resource_to_block_cache

    async def take_file(path: Any) -> str | None:
        if "://" in str(path):
            raise InvalidPathError("Only files that were uploaded are taken.")
        return await take(path)

    # A subclass would have gradio write a file beside this one.
    component.async_move_resource_to_block_cache = take_file  # type: ignore[method-assign, assignment]


def picture(value: Image.Image | None, description: str, name: str) -> gr.Image:
    """Show a picture that can be clicked, and nothing around it."""
    return gr.Image(
        value,
        format="png",
        interactive=False,
        show_label=False,
        container=False,
        buttons=[],
        alt_text=description,
        elem_id=name,
    )


def refusal(message: str) -> gr.Error:
    """Return what is raised to tell the person before the page why something is not done; nothing is logged."""
    return gr.Error(message, duration=8, print_exception=False)


def zoom_of(image: Image.Image, side: int) -> float:
    """Return by how much to enlarge a small image, by a whole number, or reduce a large one."""
    zoom = side / max(image.size)
    return zoom if zoom < 1 else int(zoom)


def enlarged(image: Image.Image, side: int) -> Image.Image:
    """Return the image as large as it is shown."""
    zoom = zoom_of(image, side)
    how = Image.Resampling.NEAREST if zoom >= 1 else Image.Resampling.LANCZOS
    return image.resize((max(1, round(image.width * zoom)), max(1, round(image.height * zoom))), how)


def drawn(finding: Finding, side: int) -> Image.Image:
    """Draw what was looked at over the image, as large as `enlarged` makes the image."""
    return overlay(finding.image, finding.records[0], zoom=zoom_of(finding.image, side), placement=finding.placement)
