"""What others take of the cores: counted from a file made here, from the load average, and beside real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from foveate.benchmark.machine import cores
from studies import other_work
from studies.other_work import OtherWork, OtherWorkWatch

LINUX = pytest.mark.skipif(not Path("/proc/stat").exists(), reason="there is no /proc/stat")


@contextmanager
def spinning(processes: int) -> Iterator[None]:
    """Keep so many processes busy."""
    code = "print(flush=True)\nwhile True: pass"
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(processes)]
    try:
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def stat(*rows: tuple[int, ...]) -> str:
    total = " ".join(map(str, map(sum, zip(*rows, strict=True))))
    lines = [f"cpu{core} " + " ".join(map(str, row)) for core, row in enumerate(rows)]
    return "\n".join([f"cpu  {total}", *lines, "intr 5 0", "ctxt 7"]) + "\n"


def test_work_is_counted_on_the_cores_of_the_process_without_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, own = tmp_path / "stat", [1.0, 0.5, 0.25, 0.25]
    monkeypatch.setattr(other_work, "STAT", file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2}, raising=False)
    monkeypatch.setattr(os, "sysconf", lambda name: 100)
    names = ("user", "system", "children_user", "children_system")
    monkeypatch.setattr(os, "times", lambda: SimpleNamespace(**dict(zip(names, own, strict=True))))
    file.write_text(stat((100, 0, 10, 500, 5, 0, 0, 3, 9, 9), (0,) * 10, (7, 7, 7, 7, 7, 7, 7, 7, 7, 7)))
    watch = OtherWorkWatch()
    # Two cores for two seconds: 0.4 user, 0.1 nice, 0.3 system, 2 idle, 0.2 waiting, 0.1 + 0.1 interrupts, 0.8 stolen
    file.write_text(stat((140, 0, 40, 600, 25, 10, 0, 83, 99, 9), (9000,) * 10, (7, 17, 7, 107, 7, 7, 17, 7, 7, 7)))
    own[0] += 0.1
    own[3] += 0.2
    found = watch.since()
    assert found is not None
    assert found.processes == pytest.approx((1.0 - 0.3) / 4)
    assert found.stolen == pytest.approx(0.8 / 4)
    assert found.share == pytest.approx(1.5 / 4)


@pytest.mark.parametrize("content", [None, "cpu 1 2\n", "cpu0 1 2 3\n", "cpu0 a b c d e f g h\n", ""])
def test_without_counts_the_load_average_has_to_do(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "stat").write_text(content)
    monkeypatch.setattr(other_work, "STAT", tmp_path / "stat")
    monkeypatch.setattr(other_work, "cores", lambda: 4)
    monkeypatch.setattr(other_work, "_own_seconds", iter([10.0, 16.0]).__next__)
    monkeypatch.setattr(time, "monotonic", iter([0.0, 4.0]).__next__)
    monkeypatch.setattr(os, "getloadavg", lambda: (2.5, 9.0, 9.0), raising=False)
    assert OtherWorkWatch().since() == OtherWork(processes=0.25, stolen=0.0)


def test_where_nothing_tells_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_work, "STAT", tmp_path / "nowhere")
    monkeypatch.delattr(os, "getloadavg", raising=False)
    assert OtherWorkWatch().since() is None


@LINUX
@pytest.mark.slow
def test_processes_beside_are_seen_and_the_own_one_is_not() -> None:
    def busy() -> OtherWork:
        watch, end = OtherWorkWatch(), time.monotonic() + 1
        while time.monotonic() < end:
            pass
        found = watch.since()
        assert found is not None
        return found

    before = busy()
    with spinning(2 * cores()):
        beside = busy()
    assert beside.share > 0.5
    if before.share < 0.2:  # else the machine was busy without us
        assert beside.share > before.share + 0.3
