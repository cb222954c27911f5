"""A benchmark from end to end on a small suite: what it writes, and what it says when something is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from studies._command import main
from studies.bench import roofline
from studies.bench.command import BenchConfig, run
from studies.bench.dense import DenseExplicit, FactoredExplicit
from studies.bench.figures import spread
from studies.bench.references import explicit_reference
from studies.bench.subject import Case, Subject, Suite
from studies.bench.suites import SUITES

OURS = Subject("ours", partial(FactoredExplicit, "gaussian"), explicit_reference("gaussian"))


def missing() -> nn.Module:
    raise ModuleNotFoundError("no module named 'peer'", name="peer")


PEERS = (OURS, Subject("N×N | dense", partial(DenseExplicit, "matmul")), Subject("elsewhere", missing))


class Wrong(FactoredExplicit):
    """Ours, with a mistake."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).roll(1, 2)


def suite(name: str, subjects: tuple[Subject, ...] = PEERS, *, by_side: bool = False) -> Suite:
    sides = ((5, 7), (11, 3))
    cases = tuple(Case(f"{h}×{w}×2", (2, h, w), subjects, group="maps") for h, w in sides)
    return Suite(name, "A small suite", ("Only for tests.",), cases, by_side=by_side)


@pytest.fixture(autouse=True)
def _small_roofline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(roofline.PRODUCT, "cpu", (1024, 64))
    monkeypatch.setitem(roofline.COPY_BYTES, "cpu", 2**16)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that runs a suite with given options."""

    def measure(of: Suite, **options: Any) -> dict[str, Any]:
        monkeypatch.setitem(SUITES, of.name, of)
        options = {"batch_size": 2, "rounds": 3, "warmup": 1, "max_noise": 1e9, "out": tmp_path / "bench", **options}
        return run(BenchConfig(suites=[of.name], **options))[of.name]

    return measure


def table_rows(text: str) -> list[list[str]]:
    """Return the cells of all tables in Markdown, headers and rules left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in cells if row[0] != "subject" and not row[0].startswith("---")]


@pytest.mark.slow
@pytest.mark.parametrize("by_side", [False, True])
def test_files_and_the_figures_in_them(
    by_side: bool, bench: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    result = bench(suite("small", by_side=by_side), dtype="both", threads=1)
    assert torch.get_num_threads() == threads
    folder = tmp_path / "bench"
    files = {name: (folder / name).read_bytes() for name in ("bench-small.json", "bench-small.md", "bench-small.svg")}
    assert {path.name for path in folder.iterdir()} == set(files)
    assert json.loads(files["bench-small.json"]) == result
    assert result["complete"]
    output = capsys.readouterr()
    assert files["bench-small.md"].decode() in output.out
    assert "small · step · bfloat16 · 11×3×2 · round 3 of 3\n" in output.err

    order = [(case["dtype"], case["mode"], case["case"]) for case in result["cases"]]
    wanted = [(d, m, c) for d in ("float32", "bfloat16") for m in ("forward", "step") for c in ("5×7×2", "11×3×2")]
    assert order == wanted
    rows = table_rows(files["bench-small.md"].decode())
    assert len(rows) == 8 * 4
    for case, start in zip(result["cases"], range(0, 32, 4), strict=True):
        ours, again, dense, _ = case["entries"]
        assert [row[0] for row in rows[start : start + 4]] == ["ours", "ours, again", r"N×N \| dense", "elsewhere"]
        assert rows[start + 3][1] == "peer is not installed"
        for entry, row in zip((ours, again, dense), rows[start : start + 3], strict=True):
            median = 1e3 * np.median(entry["seconds"])
            assert float(row[1].split()[0]) == pytest.approx(median, abs=5e-4, rel=5e-3)
            if entry is not ours:
                ratio = np.median(np.array(entry["seconds"]) / np.array(ours["seconds"]))
                assert float(row[2].split()[0]) == pytest.approx(ratio, abs=5e-4, rel=5e-3)
        assert rows[start][2] == ""

    for name in ("bench-small.md", "bench-small.svg"):
        (folder / name).unlink()
    assert main("bench", [f"--from_json={folder}/bench-small.json"]) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


@pytest.mark.slow
def test_the_best_way_of_each_is_compared(bench: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    result = bench(suite("small"), mode="forward", cases="5*")
    path = tmp_path / "bench" / "bench-small.json"
    (case,) = result["cases"]
    ours, _, dense, _ = case["entries"]
    rounds = np.arange(1.0, 6.0)
    timed = [(ours, False, 3 * rounds), (ours, True, 2 * rounds), (dense, False, 6 * rounds), (dense, True, 7 * rounds)]
    case["entries"] = [{**entry, "compiled": compiled, "seconds": list(s)} for entry, compiled, s in timed]
    result["settings"]["compiled"] = "both"
    path.write_text(json.dumps(result))
    run(BenchConfig(from_json=path))
    rows = table_rows(path.with_suffix(".md").read_text())
    assert [row[2].split(" ")[0] for row in rows] == ["", "", "2.000", "3.500"]
    assert [row[3].split(" ")[0] for row in rows] == ["", "", "3.000", ""]


@pytest.mark.slow
def test_what_is_wrong_is_not_published_and_the_exit_code_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = Subject("theirs", partial(Wrong, "gaussian"), explicit_reference("gaussian"))
    monkeypatch.setitem(SUITES, "small", suite("small", (OURS, wrong)))
    arguments = ["small", "--cases=5*", "--rounds=3", "--warmup=1", "--mode=step", f"--out={tmp_path}"]
    with pytest.raises(SystemExit) as stopped:
        main("bench", arguments)
    assert (
        stopped.value.code
        == "foveate: wrong results, whose times are not published: theirs (small, 5×7×2, step, float32)"
    )
    result = json.loads((tmp_path / "bench-small.json").read_text())
    ours, _, theirs = result["cases"][0]["entries"]
    assert (ours["status"], theirs["status"], theirs["seconds"]) == ("measured", "wrong", [])
    assert "**wrong: not published**" in capsys.readouterr().out
    assert (tmp_path / "bench-small.svg").exists()


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_measured(
    bench: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> nn.Module:
        raise KeyboardInterrupt

    small = suite("small")
    later = Case("later", (2, 3, 3), (Subject("never", interrupted),))
    with pytest.raises(KeyboardInterrupt, match=r"what was measured is in .*bench-small.json, marked as incomplete"):
        bench(Suite("small", "A small suite", (), (*small.cases, later)), mode="forward")
    path = tmp_path / "bench" / "bench-small.json"
    result = json.loads(path.read_text())
    assert not result["complete"]
    assert [case["case"] for case in result["cases"]] == ["5×7×2", "11×3×2"]
    run(BenchConfig(from_json=path))
    assert "**Incomplete: the run was interrupted.**" in path.with_suffix(".md").read_text()


def test_ctrl_c_before_anything_was_measured_leaves_the_last_result(
    bench: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    def interrupted() -> nn.Module:
        raise KeyboardInterrupt

    bench(suite("small"), mode="forward", cases="5*")
    before = {path.name: path.read_bytes() for path in (tmp_path / "bench").iterdir()}
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        bench(suite("small", (Subject("never", interrupted),)))
    assert {path.name: path.read_bytes() for path in (tmp_path / "bench").iterdir()} == before


def test_nothing_tells_which_machine_it_was(bench: Callable[..., dict[str, Any]]) -> None:
    import getpass
    import socket

    text = json.dumps(bench(suite("small"), mode="forward", cases="5*"))
    assert socket.gethostname() not in text
    assert f'"{getpass.getuser()}"' not in text
    assert str(Path.cwd()) not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no suites given; name some of gsa, expatt, cram"),
        (
            ["gas"],
            "got 'gas'; did you mean 'gsa'",
        ),
        (["gsa", "--mode=backward"], "--mode"),
        (["gsa", "--dtype=float16"], "--dtype"),
        (["gsa", "--compiled=maybe"], "--compiled"),
        (["gsa", "--memory_format=nhwc"], "--memory_format"),
        (["gsa", "--device=tpu"], "--device"),
        (["gsa", "--rounds=2"], "rounds must be at least 3"),
        (["gsa", "--warmup=0"], "warmup must be at least 1"),
        (["gsa", "--batch_size=0"], "batch_size must be at least 1"),
        (["gsa", "--threads=0"], "threads must be at least 1"),
        (["gsa", "--seed=-1"], "seed must be at least 0"),
        (["gsa", "--max_seconds=0"], "max_seconds must be a finite number above 0"),
        (["gsa", "--max_memory=-1"], "max_memory must be a finite number above 0"),
        (["gsa", "cram", "--cases=57*"], "no case fits cases='57*'; there are 56×56×64, "),
        (["gsa", "--out=/proc/bench"], "cannot write to the output folder /proc/bench"),
        (["--from_json=nowhere.json"], "nowhere.json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_options_are_named_before_any_work(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main("bench", arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("python -m studies.bench: error: ")
    assert message in output.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"title": "x"}'])
def test_a_file_of_something_else_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match=r"x\.json is not "):
        run(BenchConfig(from_json=tmp_path / "x.json"))
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize(
    ("heights", "wanted"),
    [
        ([], []),
        ([0.5], [0.5]),
        ([0.1, 0.5, 0.9], [0.1, 0.5, 0.9]),
        ([0.1, 0.15, 0.9], [0.1, 0.2, 0.9]),
        ([0.9, 0.95, 1.0], [0.8, 0.9, 1.0]),
        ([0.0, 0.0, 0.0], [0.0, 0.1, 0.2]),
    ],
)
def test_labels_are_moved_apart(heights: list[float], wanted: list[float]) -> None:
    assert spread(heights, 0.1) == pytest.approx(wanted)
