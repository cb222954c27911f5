"""What holds for all tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.interpreters import Interpreter, interpreter

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# With more of them, Inductor starts a process beside ours, which imports PyTorch only to compile for GPUs.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what is no UTF-8 in what a test printed: pytest-xdist cannot send it to the process that reports."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session", autouse=True)
def nothing_forced_to_the_disk() -> Iterator[None]:
    """Leave it to the system when files reach the disk, which is waited for long: no machine stops in a test.

    That a file is open is looked at still.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture(scope="module")
def shapes() -> Iterator[None]:
    """Check the shapes in the signatures of public functions and modules at every call."""
    from tests.shapes import checked_shapes  # not for those who run one test and have no checker

    with checked_shapes():
        yield


@pytest.fixture(scope="session")
def python() -> Iterator[Interpreter]:
    """What executes programs as a new process would."""
    with interpreter() as found:
        yield found


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium: that of the system, or else playwright's own."""
    from playwright.sync_api import Error, sync_playwright  # only here: most tests need no browser

    system = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        try:
            found = playwright.chromium.launch(executable_path=system, args=sandbox)
        except Error as error:
            pytest.fail(
                "pages are tested in Chromium, and there is none; install it with `apt-get install chromium` or "
                f"`playwright install chromium`\n{error}"
            )
        yield found
        found.close()
