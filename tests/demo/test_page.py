"""A person's whole path over the page, in Chromium: what is seen is what the networks say."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect

from foveate.demo.inference import ShownNetwork, View, load_shown, look
from foveate.demo.page import PANEL
from foveate.demo.render import prediction
from foveate.demo.samples import MAX_UPLOAD, ShownImage, draw_samples, flower, read_upload
from foveate.explain import overlay
from foveate.explain.pictures import drawn
from tests.demo.seen import changed, choose_network, pixels, said, source, upload, words_of

from .conftest import Server
from .files import BAD, photograph

ZOOM = PANEL // 32


@pytest.fixture(scope="module")
def visitor(browser: Browser) -> Iterator[BrowserContext]:
    """A browser that keeps scripts and styles from one page to the next."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield context
    context.close()


@pytest.fixture
def page(server: Server, visitor: BrowserContext) -> Iterator[Page]:
    """The page, opened; at the end nothing may have gone wrong in it, nor been asked of other servers."""
    expect.set_options(timeout=10_000)
    found = visitor.new_page()
    asked: list[str] = []
    wrong: list[str] = []
    found.on("request", lambda request: asked.append(request.url))
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.goto(server.url)
    expect(found.locator("#prediction .verdict")).to_be_visible()
    found.locator("#samples button").nth(1).click()  # the first of the digits
    expect(found.locator("#prediction .true")).to_be_visible()
    yield found
    found.close()
    assert [url for url in asked if not url.startswith((f"{server.url}/", "data:", "blob:"))] == []
    assert wrong == []


@pytest.fixture(scope="module")
def shown(networks: list[str]) -> dict[str, ShownNetwork]:
    return {network.name.partition("_")[0]: network for network in load_shown(networks) if "digits" in network.name}


@pytest.fixture(scope="module")
def of_photographs(networks: list[str]) -> dict[str, ShownNetwork]:
    return {network.name.partition("_")[0]: network for network in load_shown(networks) if "photo" in network.name}


@pytest.fixture(scope="module")
def samples() -> list[ShownImage]:
    return draw_samples(20, 0)


def expected(network: ShownNetwork, image: ShownImage, view: View | None = None) -> tuple[np.ndarray, str]:
    """Return the picture and the words that the page must show."""
    finding = look(network, image, view)
    picture = overlay(image.pixels, finding.records[0], zoom=ZOOM, placement=finding.placement)
    return np.asarray(picture), prediction(finding)


@pytest.mark.slow
def test_it_opens_with_a_flower(page: Page, networks: list[str]) -> None:
    page.reload()
    verdict = page.locator("#prediction .verdict")
    expect(verdict).to_be_visible()
    (network,) = [one for one in load_shown(networks) if one.tag == "flowers"]
    finding = look(network, flower())
    assert said(page) == words_of(prediction(finding))
    assert np.array_equal(pixels(page.locator("#attention")), np.asarray(drawn(finding, finding.records[0], PANEL)))
    expect(page.locator("#network label").first).to_contain_text("CRAM")
    expect(page.locator("#introduction")).not_to_contain_text("pip install")


@pytest.mark.slow
def test_a_sample_is_looked_at_by_one_network_after_the_other(
    page: Page, shown: dict[str, ShownNetwork], samples: list[ShownImage]
) -> None:
    attention = page.locator("#attention")
    before = source(attention)
    page.locator("#samples button").nth(1 + 7).click()
    changed(attention, before)
    for family, words in (("cram", None), ("positionwise", "Position-wise"), ("conv", "Without attention")):
        if words is not None:
            before = source(attention)
            choose_network(page, words)
            changed(attention, before)
        picture, html = expected(shown[family], samples[7])
        assert np.array_equal(pixels(attention), picture), family
        assert said(page) == words_of(html), family
    assert np.array_equal(pixels(page.locator("#original"))[::ZOOM, ::ZOOM], np.asarray(samples[7].pixels))
    expect(page.locator("#prediction .true")).to_contain_text("7")


@pytest.mark.slow
def test_a_click_shows_what_a_pixel_attends_to(
    page: Page, shown: dict[str, ShownNetwork], samples: list[ShownImage]
) -> None:
    attention, original = page.locator("#attention"), page.locator("#original img")
    before = source(attention)
    choose_network(page, "GSA")
    changed(attention, before)
    views = [View()]
    box = original.bounding_box()
    assert box is not None
    for x, y in ((0.2, 0.3), (0.71, 0.86)):
        before = source(attention)
        original.click(position={"x": x * box["width"], "y": y * box["height"]})
        changed(attention, before)
        views.append(View(point=(x * 32, y * 32)))
        assert np.array_equal(pixels(attention), expected(shown["gsa"], samples[0], views[-1])[0])
    for choice, view in (
        ("Who takes from the pixel", View(point=views[-1].point, direction="to")),
        ("What is there", View(point=views[-1].point, direction="to", part="content")),
        ("2 of 4", View(shown["gsa"].layers[1].name, views[-1].point, direction="to")),
    ):
        before = source(attention)
        page.locator("#controls label", has_text=choice).click()
        changed(attention, before)
        if choice == "2 of 4":  # the other choices are kept
            view = View(view.layer, view.point, "to", "content")
        assert np.array_equal(pixels(attention), expected(shown["gsa"], samples[0], view)[0]), choice


def test_a_click_on_what_was_cropped_away_changes_nothing(page: Page, server: Server, tmp_path: Path) -> None:
    """It is said why, once; nothing is logged; and the page goes on from where it was."""
    attention, printed = page.locator("#attention"), len(server.printed)
    before = source(attention)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 300), np.uint8)).save(tmp_path / "wide.png")
    upload(page, tmp_path / "wide.png")
    changed(attention, before)
    expect(page.locator("#meaning")).to_contain_text("cropped away before the network saw the image")
    before = source(attention)
    choose_network(page, "GSA")
    changed(attention, before)
    before = source(attention)
    page.locator("#original img").click(position={"x": 3, "y": 3})
    said = page.get_by_text("That pixel is cropped away")
    expect(said).to_be_visible()
    page.locator("#controls label", has_text="3 of 4").click()
    changed(attention, before)
    expect(page.locator("#numbers")).not_to_contain_text("Position")
    expect(said).to_have_count(1)
    assert server.printed[printed:] == []


def test_a_click_moves_the_middle_of_explicit_attention(
    page: Page, shown: dict[str, ShownNetwork], samples: list[ShownImage]
) -> None:
    attention = page.locator("#attention")
    before = source(attention)
    choose_network(page, "ExpAtt")
    changed(attention, before)
    expect(page.locator("#meaning")).not_to_contain_text("cropped away")
    expect(page.locator("#sentence")).to_contain_text("Click a pixel")
    before, box = source(attention), attention.locator("img").bounding_box()
    assert box is not None
    attention.locator("img").click(position={"x": 0.2 * box["width"], "y": 0.8 * box["height"]})
    changed(attention, before)
    picture, _ = expected(shown["expatt"], samples[0], View(point=(0.2 * 32, 0.8 * 32)))
    assert np.array_equal(pixels(attention), picture)


@pytest.mark.slow
def test_another_radius_changes_the_map_and_the_prediction(
    page: Page, shown: dict[str, ShownNetwork], samples: list[ShownImage]
) -> None:
    attention, network = page.locator("#attention"), shown["expatt"]
    before = source(attention)
    choose_network(page, "ExpAtt")
    changed(attention, before)
    learnt = expected(network, samples[0])
    assert np.array_equal(pixels(attention), learnt[0])
    slider = page.locator("#radius input[type=range]")
    before = source(attention)
    slider.focus()
    page.keyboard.press("Home")  # the smallest
    changed(attention, before)
    expect(page.locator("#numbers")).to_contain_text("0.05 positions")
    small = expected(network, samples[0], View(radius=0.05))
    assert np.array_equal(pixels(attention), small[0])
    assert said(page) == words_of(small[1]) != words_of(learnt[1])

    page.locator("#reset").click()
    expect(page.locator("#numbers")).to_contain_text(f"{network.layer(None).radius:.2f} positions")
    assert np.array_equal(pixels(attention), learnt[0])
    assert said(page) == words_of(learnt[1])

    before = source(attention)
    box = slider.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    changed(attention, before)
    radius = float(slider.input_value())
    assert radius > 5
    expect(page.locator("#numbers")).to_contain_text(f"{radius:.2f} positions")


def test_all_networks_side_by_side(page: Page, shown: dict[str, ShownNetwork], samples: list[ShownImage]) -> None:
    choose_network(page, "All side by side")
    figures = page.locator("#comparison figure")
    expect(figures).to_have_count(1 + len(shown))
    verdicts = page.locator("#comparison .verdict").all_inner_texts()
    for network, verdict in zip(shown.values(), verdicts, strict=True):
        (guess,) = look(network, samples[0]).explanation.top(1)[0]
        assert verdict.startswith(f"Predicted {guess.label}, {guess.probability:.1%}")
    page.locator("#samples button").nth(1 + 4).click()
    expect(figures.first).to_contain_text("it is 4")
    choose_network(page, "CRAM")
    expect(page.locator("#prediction .true")).to_contain_text("4")
    expect(figures.first).to_be_hidden()


@pytest.mark.slow
def test_good_and_bad_uploads(page: Page, of_photographs: dict[str, ShownNetwork], tmp_path: Path) -> None:
    attention, message = page.locator("#attention"), page.locator("#message")
    photo = photograph(tmp_path)
    kept = photo.read_bytes()
    first = source(attention)
    upload(page, photo)
    changed(attention, first)
    expect(page.locator("#prediction .true")).to_have_count(0)
    finding = look(of_photographs["cram"], read_upload(photo))  # those of digits are not offered for it
    assert said(page) == words_of(prediction(finding))
    expect(page.locator("#network label")).to_have_count(1 + len(of_photographs) + 1)  # all of them; that of flowers
    expect(page.locator("#prediction [role=alert]")).to_have_count(0)
    image = finding.image
    picture = overlay(image, finding.records[0], zoom=PANEL / max(image.size), placement=finding.placement)
    assert np.array_equal(pixels(attention), np.asarray(picture))

    before = source(attention)
    for write, words in BAD.items():
        upload(page, write(tmp_path))
        expect(message).to_contain_text(words)
        expect(message.get_by_role("alert")).to_be_visible()
        assert source(attention) == before
    (tmp_path / "large.png").write_bytes(kept + bytes(MAX_UPLOAD))
    upload(page, tmp_path / "large.png")
    expect(page.get_by_text(re.compile("exceed the maximum allowed size of 10"))).to_be_visible()

    Image.open(io.BytesIO(kept)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "other.webp", lossless=True)
    upload(page, tmp_path / "other.webp")
    changed(attention, before)
    expect(message).to_be_empty()
    expect(page.locator("#samples .selected")).to_have_count(0)

    page.locator("#samples button").nth(1).click()
    expect(page.locator("#prediction .true")).to_contain_text("0")
    expect(page.locator("#network label", has_text="Grad-CAM")).to_be_visible()  # one of digits
    upload(page, photo)  # the same file once more
    expect(page.locator("#prediction .true")).to_have_count(0)
    assert np.array_equal(pixels(attention), np.asarray(picture))


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_wider_than_the_screen(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 850})
    for choice, where, words in (
        ("GSA", "#sentence", "GSA"),
        ("ExpAtt", "#sentence", "ExpAtt"),
        ("All side by side", "#comparison", "Grad-CAM"),
    ):
        choose_network(page, choice)
        expect(page.locator(where)).to_contain_text(words)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
