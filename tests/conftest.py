"""What holds for all tests."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what is no UTF-8 in what a test printed: pytest-xdist cannot send it to the process that reports."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="module")
def shapes() -> Iterator[None]:
    """Check the shapes in the signatures of public functions and modules at every call."""
    from tests.shapes import checked_shapes  # not for those who run one test and have no checker

    with checked_shapes():
        yield
