"""What is seen and done on the page, in Chromium."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from playwright.sync_api import Locator, Page, expect


def source(picture: Locator) -> str:
    """Return the address of what a picture shows."""
    return picture.locator("img").get_attribute("src") or ""


def pixels(picture: Locator) -> np.ndarray:
    """Return what a picture shows, as the browser got it."""
    src = source(picture)
    data = base64.b64decode(src.partition(",")[2]) if src.startswith("data:") else httpx.get(src).content
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def changed(picture: Locator, before: str) -> None:
    """Wait until a picture shows something else."""
    expect(picture.locator("img")).not_to_have_attribute("src", before)


def choose_network(page: Page, words: str) -> None:
    page.locator("#network label", has_text=words).click()


def upload(page: Page, path: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.locator("#upload").click()
    chooser.value.set_files(path)


def said(page: Page) -> list[str]:
    """Return the probabilities on the page."""
    return page.locator("#prediction .bar > span:last-child").all_inner_texts()


def words_of(html: str) -> list[str]:
    return re.findall(r"<span>([\d.]+%)</span>", html)
