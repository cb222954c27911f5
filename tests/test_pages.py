"""The documentation as readers see it: it builds without a warning, and nothing runs out of its box."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parents[1]
PHONE, DESK = 390, 1280
"""Widths of a window, in pixels."""
TRIES = 50
"""A tenth of a second each, until a page is laid out in a new window."""
TOO_WIDE = """() => {
  const scrolls = (element) => ["auto", "scroll"].includes(getComputedStyle(element).overflowX);
  const held = (element) => element && (scrolls(element) || held(element.parentElement));
  const right = document.documentElement.clientWidth + 1;
  const out = [...document.querySelectorAll("article *")].filter(
    (element) => element.getBoundingClientRect().right > right && !held(element));
  const cut = [...document.querySelectorAll(":is(.language-python, .language-bash) code")].filter(
    (element) => element.scrollWidth > element.clientWidth + 1);
  const whole = document.scrollingElement.scrollWidth > right ? [document.body] : [];
  return [...whole, ...out, ...cut].map((element) => `${element.tagName}: ${element.textContent.slice(0, 60)}`);
}"""
"""Gives what is wider than the window and does not scroll in a box of its own, and programs that are cut off."""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder of the built documentation, and the address at which it is served."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
def test_nothing_runs_out_of_its_box(site: tuple[Path, str], browser: Browser) -> None:
    folder, address = site
    pages = sorted(path.parent.relative_to(folder).as_posix() for path in folder.rglob("index.html"))
    assert len(pages) > 20
    page = browser.new_page()
    found = {}
    for number, name in enumerate(pages):
        page.goto(f"{address}/{name}/")
        for width in (PHONE, DESK)[:: 1 if number % 2 else -1]:  # beginning with that of the page before
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_function("width => innerWidth === width", arg=width)  # the window changes by and by
            for _ in range(TRIES):  # and what is in it later still
                found[name, width] = page.evaluate(TOO_WIDE)
                if not found[name, width]:
                    break
                page.wait_for_timeout(100)
    page.close()
    assert {where: elements for where, elements in found.items() if elements} == {}


@pytest.mark.slow
def test_the_first_page_is_the_readme(site: tuple[Path, str], browser: Browser) -> None:
    folder, address = site
    page = browser.new_page()
    page.goto(f"{address}/")
    headings = [line.lstrip("# ") for line in (ROOT / "README.md").read_text("utf-8").splitlines() if line[:2] == "##"]
    assert [text.rstrip("¶") for text in page.locator("article h2").all_inner_texts()] == headings
    assert page.locator("article img").evaluate("(image) => image.complete && image.naturalWidth") > 800
    page.close()
    assert (folder / "assets" / "where.jpg").stat().st_size < 300_000
