"""Parts that the page is made of, and the pictures on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.exceptions import InvalidPathError
from PIL import Image

__all__ = ["appearance", "heading", "html", "own_files", "picture", "refusal", "take_as_given", "take_no_addresses"]


def appearance() -> dict[str, Any]:
    """Return how the page looks, for `gradio.Blocks.launch`; nothing of it comes from another server."""
    letters = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif"]
    theme = gr.themes.Base(
        primary_hue="teal", neutral_hue="slate", radius_size="sm", font=letters, font_mono=["ui-monospace", "monospace"]
    )
    return {"theme": theme, "css": Path(__file__).with_name("page.css").read_text(encoding="utf-8")}


def heading(text: str) -> None:
    """Write a heading."""
    gr.HTML(f"<h2>{text}</h2>", padding=False)


def html(name: str) -> gr.HTML:
    """Leave a place for HTML."""
    return gr.HTML("", padding=False, elem_id=name)


def take_no_addresses(component: gr.UploadButton) -> None:
    """Restrict a component to uploaded files; gradio would fetch the address of another server."""
    take = component.async_move_resource_to_block_cache

    async def take_file(path: Any) -> str | None:
        if "://" in str(path):
            raise InvalidPathError("Only files that were uploaded are taken.")
        return await take(path)

    # A subclass would have gradio write a file beside this one.
    component.async_move_resource_to_block_cache = take_file  # type: ignore[method-assign, assignment]


def take_as_given(component: Any) -> Any:
    """Have a component take what was not offered: what was offered to a page is forgotten once many others are opened.

    A page that is still known takes what it was offered alone. Of another one the image is gone as well, which is said.
    """
    component.preprocess = lambda value: value
    return component


def own_files(blocks: gr.Blocks) -> Iterator[str]:
    """Yield the files of a page itself, which lie where uploads do."""
    for block in blocks.blocks.values():
        yield from getattr(block, "keep_in_cache", ())


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
