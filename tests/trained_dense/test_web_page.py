"""The web page with networks for segmentation and detection: masks and boxes on the picture, a click, in Chromium."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from foveate.demo.inference import View, load_shown, look
from foveate.demo.page import PANEL
from foveate.demo.render import comparison, mechanism, numbers, prediction
from foveate.demo.samples import draw_samples
from foveate.explain.pictures import answered, looked_at
from tests.demo.conftest import start
from tests.demo.seen import changed, pixels, source

from .conftest import train


@pytest.mark.slow
def test_a_click_asks_for_a_pixel(
    segmentation_run: Path, detection_run: Path, tmp_path: Path, browser: Browser
) -> None:
    server = start([f"--checkpoint={folder}" for folder in (segmentation_run, detection_run)], tmp_path)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        page = context.new_page()
        page.goto(server.url)
        expect(page.locator("#prediction .verdict")).to_be_visible(timeout=30_000)
        segmenter, detector = load_shown([str(segmentation_run), str(detection_run)])
        (image,) = draw_samples(1, 0)
        original, zoom = page.locator("#original"), PANEL // 32
        assert np.array_equal(pixels(original), np.asarray(answered(look(segmenter, image), PANEL)))
        shown = original.locator("img").bounding_box()
        assert shown is not None
        before = source(original)
        original.locator("img").click(position={"x": 20.5 / 32 * shown["width"], "y": 11.5 / 32 * shown["height"]})
        changed(original, before)
        asked = look(segmenter, image, View(point=(20.5, 11.5)))
        assert asked.query == (11, 20)
        assert np.array_equal(pixels(original), np.asarray(answered(asked, PANEL)))
        assert np.array_equal(pixels(page.locator("#attention")), np.asarray(looked_at(asked, PANEL)))
        assert asked.verdict()[1:] in page.locator("#prediction .verdict").inner_text()
        before = source(original)
        page.locator("#network label").nth(1).click()
        changed(original, before)
        found = look(detector, image)
        assert np.array_equal(pixels(original), np.asarray(answered(found, PANEL)))
        assert found.verdict()[1:] in page.locator("#prediction .verdict").inner_text()
        assert zoom * 32 == pixels(original).shape[0]
    finally:
        context.close()
        server.process.terminate()
        server.process.wait(timeout=20)


@pytest.mark.slow
def test_a_network_without_attention_has_its_mask_alone(tmp_path: Path) -> None:
    plain = train(tmp_path / "run", "conv_resnet_tiny", "segmentation", head_args={"decoder_channels": [8, 8, 8]})
    (shown,) = load_shown([str(plain)])
    (image,) = draw_samples(1, 3)
    finding = look(shown, image, View(point=(3.5, 30.2)))
    assert list(finding.records) == []
    assert finding.query == (30, 3)
    said = prediction(finding)
    assert len(re.findall('class="swatch"', said)) == min(10, len(finding.answer.parts()))
    assert finding.verdict()[1:] in said
    assert mechanism(finding).seen
    assert numbers(finding) == ""
    html = comparison(image.pixels, None, [("plain", finding, looked_at(finding, 64))])
    assert html.count("<img") == 3  # the image, the mask, and no map over the image
    with pytest.raises(ValueError, match="pixel"):
        look(shown, image, View(point=(40, 2)))
