"""``python -m studies.bench``: time and memory of modules and whole networks against others, measured side by side."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from foveate import _checks
from foveate.benchmark.machine import describe_machine
from foveate.io.files import read_json, writable_folder, write_bytes, write_json, write_text
from foveate.models.missing_kernels import warn_of_missing_kernels
from foveate.training import check_device
from studies.bench.figures import draw
from studies.bench.measurement import WRONG, Conditions, Measurer
from studies.bench.roofline import measure_roofline
from studies.bench.subject import Case, Suite
from studies.bench.suites import SUITES
from studies.bench.table import to_markdown

__all__ = ["BenchConfig", "run"]

GIB = 2**30

MODES = {"forward": ("forward",), "step": ("step",), "both": ("forward", "step")}
DTYPES = {
    "float32": (torch.float32,),
    "bfloat16": (torch.bfloat16,),
    "both": (torch.float32, torch.bfloat16),
}
COMPILED = {"no": (False,), "yes": (True,), "both": (False, True)}
MEMORY_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


@dataclass(kw_only=True)
class BenchConfig:
    """Measure suites of modules or networks: each subject checked first, then timed beside the others.

    Attributes:
        suites: Any of gsa, expatt, cram (modules), networks, overhead, small (whole networks), scaling (modules against
            the side of the map), large (networks against the side of the image).
        cases: Only those cases of the suites whose label fits this pattern, as in 56* for a side.
        mode: forward in inference; step, a whole training step; or both.
        dtype: float32, bfloat16 by autocast, or both.
        compiled: Through torch.compile (its time does not count): no, yes, or both.
        batch_size: Images; not given, 8, in the suite small 64, and 1 in the suites scaling and large.
        rounds: Timed rounds, in each of which every subject runs.
        warmup: Rounds before those, untimed.
        threads: Threads that PyTorch computes with; not given, as it finds best.
        memory_format: Layout of the input and of the convolutions' weights.
        device: cpu, cuda, or mps (the GPU of a Mac; memory is not measured there).
        seed: What weights and inputs are drawn from.
        max_seconds: What would take longer for one call is left out, as far as a smaller case tells.
        max_memory: What would need more memory, in GiB, is left out.
        max_noise: What the first subject may stray from itself, as a share of its time, in the quartiles of the rounds:
            beyond that, and where another subject scatters by more than that and twice as much as the first one, the
            case is measured again.
        repeats: How often, at most; of what is unsteady then, no ratio is published.
        out: Folder for bench-SUITE.json, and for the table (.md) and the figure (.svg) made from it.
        from_json: Measure nothing; make table and figure anew from this file, beside it.
    """

    suites: list[str] = field(default_factory=list)
    cases: str = "*"
    mode: Literal["forward", "step", "both"] = "both"
    dtype: Literal["float32", "bfloat16", "both"] = "float32"
    compiled: Literal["no", "yes", "both"] = "no"
    batch_size: int | None = None
    rounds: int = 15
    warmup: int = 2
    threads: int | None = None
    memory_format: Literal["channels_last", "contiguous"] = "channels_last"
    device: Literal["cpu", "cuda", "mps"] = "cpu"
    seed: int = 0
    max_seconds: float = 20.0
    max_memory: float = 8.0
    max_noise: float = 0.05
    repeats: int = 3
    out: Path = Path("runs/bench")
    from_json: Path | None = None

    def check(self) -> None:
        """Raise a `ValueError` that names the first setting that is out of its range."""
        if not self.suites:
            raise ValueError(f"no suites given; name some of {', '.join(SUITES)}, as in gsa expatt")
        for name in self.suites:
            _checks.one_of("suites", name, SUITES)
        for name, choices in (("mode", MODES), ("dtype", DTYPES), ("compiled", COMPILED)):
            _checks.one_of(name, getattr(self, name), choices)
        _checks.one_of("memory_format", self.memory_format, MEMORY_FORMATS)
        for name in ("batch_size", "threads"):
            if getattr(self, name) is not None:
                _checks.integer(name, getattr(self, name))
        _checks.integer("rounds", self.rounds, minimum=3)  # for quartiles
        _checks.integer("warmup", self.warmup)
        _checks.integer("seed", self.seed, minimum=0)
        _checks.number("max_seconds", self.max_seconds, above=0)
        _checks.number("max_memory", self.max_memory, above=0)
        _checks.number("max_noise", self.max_noise, above=0)
        _checks.integer("repeats", self.repeats, minimum=0)
        if not any(self.chosen(SUITES[name]) for name in self.suites):
            labels = ", ".join(case.label for name in self.suites for case in SUITES[name].cases)
            raise ValueError(f"no case fits cases={self.cases!r}; there are {labels}")

    def chosen(self, suite: Suite) -> list[Case]:
        """Return the cases of a suite that are to be measured."""
        return [case for case in suite.cases if fnmatchcase(case.label, self.cases)]

    def conditions(self, suite: Suite) -> Iterator[Conditions]:
        """Yield how the cases of a suite are measured, one after the other."""
        for dtype in DTYPES[self.dtype]:
            for mode in MODES[self.mode]:
                yield Conditions(
                    mode=mode,
                    dtype=dtype,
                    compiled=COMPILED[self.compiled],
                    device=torch.device(self.device),
                    memory_format=MEMORY_FORMATS[self.memory_format],
                    batch_size=self.batch_size or suite.batch_size,
                    rounds=self.rounds,
                    warmup=self.warmup,
                    seed=self.seed,
                    max_seconds=self.max_seconds,
                    max_memory=self.max_memory * GIB,
                    max_noise=self.max_noise,
                    repeats=self.repeats,
                )


def run(config: BenchConfig) -> dict[str, Any]:
    """Measure the suites, print their tables, and save them in ``config.out``; return the results by suite.

    What is measured is saved after each case. Table and figure are made from the saved file, and ``from_json`` makes
    them again, byte for byte.

    Raises:
        ValueError: A setting is wrong, or there is no such device.
        SystemExit: With code 1, after everything has been saved: what a subject computed was wrong.
        KeyboardInterrupt: Ctrl-C; what was measured is saved, and marked as incomplete.
    """
    if config.from_json is not None:
        return {config.from_json.stem: _publish(config.from_json)}
    config.check()
    device = check_device(config.device, "32-true")
    warn_of_missing_kernels(device)
    writable_folder(config.out)
    results = {}
    with _settings(config.threads):
        roofline = {}
        for dtype in DTYPES[config.dtype]:
            _say(f"what the machine can do in {_name(dtype)}")
            roofline[_name(dtype)] = dataclasses.asdict(measure_roofline(device, dtype))
        for name in filter(lambda name: config.chosen(SUITES[name]), dict.fromkeys(config.suites)):
            path = config.out / f"bench-{name}.json"
            _measure(config, SUITES[name], roofline, path)
            results[name] = _publish(path)
    wrong = [
        f"{entry['name']} ({name}, {case['case']}, {case['mode']}, {case['dtype']})"
        for name, result in results.items()
        for case in result["cases"]
        for entry in case["entries"]
        if entry["status"] == WRONG
    ]
    if wrong:
        raise SystemExit(f"foveate: wrong results, whose times are not published: {', '.join(wrong)}")
    return results


def _measure(config: BenchConfig, suite: Suite, roofline: dict[str, Any], path: Path) -> None:
    """Measure a suite, saving after every case."""
    settings = {name: value for name, value in dataclasses.asdict(config).items() if name not in ("out", "from_json")}
    result: dict[str, Any] = {
        "suite": suite.name,
        "title": suite.title,
        "notes": suite.notes,
        "by_side": suite.by_side,
        "complete": False,
        "settings": settings,
        "machine": describe_machine(torch.device(config.device)),
        "ceilings": roofline,
        "cases": [],
    }
    try:
        for conditions in config.conditions(suite):
            how = f"{conditions.mode} · {_name(conditions.dtype)}"
            measurer = Measurer(conditions, partial(_progress, f"{suite.name} · {how}"))
            for case in config.chosen(suite):
                result["cases"].append(measurer.measure(case))
                write_json(path, result)
    except KeyboardInterrupt as error:
        if not result["cases"]:
            raise
        raise KeyboardInterrupt(f"what was measured is in {path}, marked as incomplete") from error
    result["complete"] = True
    write_json(path, result)
    _say("")


def _publish(path: Path) -> dict[str, Any]:
    """Make table and figure from a saved result, beside it; print the table."""
    result = read_json(path)
    try:
        table, figure = to_markdown(result), draw(result)
    except (ArithmeticError, AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not what `python -m studies.bench` writes: {error!r}") from error
    write_text(path.with_suffix(".md"), table)
    write_bytes(path.with_suffix(".svg"), figure)
    print(f"{table}\nsaved in {path.parent}: {path.name}, {path.stem}.md, {path.stem}.svg")
    return result


@contextmanager
def _settings(threads: int | None) -> Iterator[None]:
    """Compute with so many threads; on CUDA, in true float32, with the convolutions that prove fastest."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
            yield
    finally:
        torch.set_num_threads(before)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _progress(where: str, case: Case, text: str) -> None:
    _say(f"{where} · {case.label} · {text}")


def _say(text: str) -> None:
    """Tell on stderr what begins: in a terminal on one line, which an empty text wipes; else line by line."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)
