"""How long a visitor of the web page waits for a picture, measured in Chromium: ``python -m studies.page_latency``.

The page is served as `foveate demo` serves it, by a process of its own, and opened in a browser. That one's own clock
runs from the event of a click or of a dragged slider until the new picture is decoded and the next frame is drawn.

- ``sample``: another sample is clicked, with the network that the page opens with.
- ``pixel``: a pixel of the image is clicked, with the network whose attention differs from pixel to pixel.
- ``radius``: the slider of ExpAtt's radius is moved.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median, quantiles

from playwright.sync_api import Page, sync_playwright

from foveate import _checks
from foveate.benchmark.machine import cores
from studies.other_work import OtherWorkWatch

__all__ = ["main", "measure"]

WAIT = 20_000
"""Milliseconds after which something is broken."""
PAUSE = 0.15
"""Seconds between two actions: what the last one set going has ended."""

ARM = """() => {
  const picture = document.querySelector('#attention');
  const before = picture.querySelector('img')?.src;
  window.waited = new Promise(resolve => {
    let began = null;
    const start = event => { began ??= event.timeStamp; };
    for (const kind of ['click', 'input']) addEventListener(kind, start, {capture: true, once: true});
    const observer = new MutationObserver(async () => {
      const image = picture.querySelector('img');
      if (began === null || !image || image.src === before) return;
      observer.disconnect();
      await image.decode();
      requestAnimationFrame(() => resolve(performance.now() - began));
    });
    observer.observe(picture, {subtree: true, childList: true, attributes: true});
  });
}"""
"""Lets ``window.waited`` become the milliseconds from the next event to the picture that comes of it."""

MOVE = """(slider, value) => {
  slider.value = value;
  slider.dispatchEvent(new Event('input', {bubbles: true}));
}"""


@contextmanager
def served(checkpoints: Sequence[str]) -> Iterator[str]:
    """Serve the page; yield its address."""
    command = [sys.executable, "-m", "foveate", "demo", *checkpoints]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        assert process.stdout is not None
        found = next(filter(None, (re.search(r"page is at (http://\S+)", line) for line in process.stdout)), None)
        if found is None:
            raise ValueError(f"`foveate demo` ended with code {process.wait()} before it answered")
        yield found[1]
    finally:
        process.terminate()
        process.wait(timeout=20)


@contextmanager
def opened(url: str) -> Iterator[Page]:
    """Open the page in Chromium: the system's, or else playwright's own."""
    system = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=system, args=sandbox)
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(WAIT)
            page.goto(url)
            page.locator("#prediction .verdict").wait_for()
            yield page
        finally:
            browser.close()


def timed(page: Page, act: Callable[[], object]) -> float:
    """Return the milliseconds from what ``act`` does to its picture."""
    page.evaluate(ARM)
    act()
    waited = page.evaluate("window.waited")
    time.sleep(PAUSE)
    return waited


def samples(page: Page, count: int) -> list[float]:
    """Click one sample after the other."""
    buttons = page.locator("#samples button")
    number = buttons.count()
    return [timed(page, buttons.nth((index + 1) % number).click) for index in range(count)]


def pixels(page: Page, count: int) -> list[float]:
    """Click pixels of the image, each in another row and column than the one before."""
    _choose(page, "GSA")
    image = page.locator("#original img")
    box = image.bounding_box()
    assert box is not None

    def click(index: int) -> Callable[[], object]:
        x, y = ((index * 13 + 5) % 32 + 0.5) / 32, ((index * 7 + 3) % 32 + 0.5) / 32
        return lambda: image.click(position={"x": x * box["width"], "y": y * box["height"]})

    return [timed(page, click(index)) for index in range(count)]


def radii(page: Page, count: int) -> list[float]:
    """Move the slider of the radius up and down."""
    _choose(page, "ExpAtt")
    slider = page.locator("#radius input[type=range]")
    slider.wait_for()
    values = [f"{0.5 + (index * 7 % 25) * 0.1:.2f}" for index in range(count)]
    return [timed(page, lambda value=value: slider.evaluate(MOVE, value)) for value in values]  # type: ignore[misc]


def _choose(page: Page, words: str) -> None:
    timed(page, page.locator("#network label", has_text=words).click)


ACTIONS: dict[str, Callable[[Page, int], list[float]]] = {"sample": samples, "pixel": pixels, "radius": radii}


def measure(page: Page, count: int) -> dict[str, list[float]]:
    """Return milliseconds of each action, ``count`` of each, after one that does not count."""
    found = {}
    for name, act in ACTIONS.items():
        watch = OtherWorkWatch()
        found[name] = act(page, count + 1)[1:]
        others = watch.since()
        p95 = quantiles(found[name], n=20, method="inclusive")[-1]
        # The server and the browser are others' processes to this one, which only waits.
        busy = "unknown" if others is None else f"cores busy {others.processes:.0%}, stolen {others.stolen:.0%}"
        times = f"least {min(found[name]):6.1f} ms   median {median(found[name]):6.1f} ms   p95 {p95:6.1f} ms"
        print(f"{name:8} {times}   {busy}", flush=True)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m studies.page_latency", description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoints", nargs="*", help="networks of the page; by default those that come with foveate")
    parser.add_argument("--count", type=int, default=50, help="how many of each action (50)")
    options = parser.parse_args(argv)
    _checks.integer("count", options.count, minimum=2)
    print(f"{cores()} cores, load average {os.getloadavg()[0]:.2f} at the start, {options.count} of each", flush=True)
    with served(options.checkpoints) as url, opened(url) as page:
        measure(page, options.count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
