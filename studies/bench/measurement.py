"""One case measured: every subject checked, counted, and timed beside the others."""

from __future__ import annotations

import copy
import dataclasses
import textwrap
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from foveate._memory import freed_memory_kept, out_of_memory
from foveate.benchmark.cost import network_cost, step_flops
from foveate.benchmark.interleaving import Samples, interleaved
from foveate.benchmark.memory import peak_memory
from studies.bench.correctness import Check, against_eager, against_reference
from studies.bench.forecast import forecast_memory
from studies.bench.profile import operator_seconds
from studies.bench.steadiness import unsteady
from studies.bench.subject import Case, Subject, prepared
from studies.bench.workload import Workload, least_traffic
from studies.other_work import OtherWork, OtherWorkWatch

__all__ = ["LEFT_OUT", "MEASURED", "WRONG", "Conditions", "Entry", "Measurer"]

MEASURED, WRONG, LEFT_OUT = "measured", "wrong", "left out"

MIN_SAMPLE = 0.01
"""A call that takes less, in seconds, is repeated until a sample lasts about so long."""
OPERATORS = 0.02
"""The least share of a network's time at which an operator is named."""
RECOMPILATIONS = 64
"""Versions of one function that the compiler may make: every module of a class is one, and every mode."""

REASON_WIDTH = 60
"""Characters of an error's first line that are kept."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """How cases are measured."""

    mode: str
    """``forward`` or ``step``; see `studies.bench.workload.Workload`."""
    dtype: torch.dtype = torch.float32
    """float32; or bfloat16, with bfloat16 inputs and autocast around float32 weights."""
    compiled: tuple[bool, ...] = (False,)
    """Whether each subject runs as it is, compiled, or both."""
    device: torch.device
    memory_format: torch.memory_format = torch.channels_last
    batch_size: int
    rounds: int = 15
    warmup: int = 2
    seed: int = 0
    max_seconds: float
    """A call that would take longer is left out, as far as a smaller case of the group tells."""
    max_memory: float
    """A call that would need more bytes is left out."""
    max_noise: float = 0.05
    """What the base may stray from itself, see `studies.bench.steadiness.unsteady`."""
    repeats: int = 3
    """How often a case with unsteady entries is measured again, at most."""


class Counts(NamedTuple):
    """What follows from the formulas."""

    parameters: int
    flops: int
    """Of the whole batch in this mode, 1 multiply-add = 2 FLOPs; FFT is not counted."""
    traffic: int
    """Bytes that cannot but be moved."""


@dataclass
class Entry:
    """What was measured of a subject in one case."""

    name: str
    compiled: bool
    again: bool = False
    """Whether this is the base's second entry: the same, built once more."""
    status: str = MEASURED
    reason: str | None = None
    """Why it was left out."""
    parameters: int | None = None
    flops: int | None = None
    traffic: int | None = None
    """See `Counts`; None if it could not be built."""
    peak_memory: int | None = None
    """Bytes that the call adds to weights, input and the optimiser's state."""
    check: Check | None = None
    repetitions: int = 0
    seconds: list[float] = field(default_factory=list)
    """Of one call, round by round; rounds are the same for all entries of a case."""
    unsteady: bool = False
    """Whether it stayed noisier than it may be, so that its ratio says nothing."""
    operators: dict[str, float] = field(default_factory=dict)
    """Of a network: seconds of the operators that take at least `OPERATORS` of the time, profiled after the rounds."""


class Timing(NamedTuple):
    """One time that all rounds of a case were run."""

    samples: dict[int, Samples]
    unsteady: dict[int, float]
    """Entries that were noisier than they may be, and how many times as noisy."""
    others: OtherWork | None
    """What else ran on the cores; None where the system does not tell."""


class Measurer:
    """Measures one case after another under the same conditions.

    Args:
        conditions: How.
        progress: Told in a few words what begins, and in which case.
    """

    def __init__(self, conditions: Conditions, progress: Callable[[Case, str], None] = lambda case, text: None) -> None:
        self.conditions, self.progress = conditions, progress
        self.last: dict[tuple[str, str, bool], tuple[int, int, float]] = {}
        """By group, subject and compilation: positions, FLOPs and least seconds of the last case."""

    def measure(self, case: Case) -> dict[str, Any]:
        """Check, count and time the subjects of ``case``; return what JSON is to hold of it.

        A subject whose package is missing, that would need too much memory or time, or that cannot be compiled is left
        out, with the reason; one whose results are wrong is not timed.
        """
        conditions = self.conditions
        torch.compiler.reset()
        x = self._input(case)
        calls: list[tuple[Entry, Workload]] = []
        entries: list[Entry] = []
        with torch._dynamo.config.patch(recompile_limit=RECOMPILATIONS):
            for number, subject in enumerate(case.subjects):
                for entry, call in self._enter(case, subject, x, twice=number == 0):
                    entries.append(entry)
                    if call is not None:
                        calls.append((entry, call))
            quiet = self._time(case, calls) if calls else {}
        return {
            "case": case.label,
            "group": case.group,
            "input": [conditions.batch_size, *case.input_size],
            "network": case.network,
            "mode": conditions.mode,
            "dtype": str(conditions.dtype).removeprefix("torch."),
            **quiet,
            "entries": [dataclasses.asdict(entry) for entry in entries],
        }

    def _input(self, case: Case) -> Tensor:
        generator = torch.Generator().manual_seed(self.conditions.seed)
        x = torch.randn(self.conditions.batch_size, *case.input_size, generator=generator)
        return x.to(self.conditions.device, self.conditions.dtype, memory_format=self.conditions.memory_format)

    def _enter(self, case: Case, subject: Subject, x: Tensor, *, twice: bool) -> list[tuple[Entry, Workload | None]]:
        """Return the entries of a subject, each with the call to time, if it is to be timed."""
        conditions = self.conditions
        self.progress(case, f"{subject.name}: building")
        entered: list[tuple[Entry, Workload | None]] = []
        try:
            module = prepared(subject.build, conditions.seed)
        except ModuleNotFoundError as error:
            reason = f"{error.name} is not installed"
            return [(Entry(subject.name, compiled, False, LEFT_OUT, reason), None) for compiled in conditions.compiled]
        module = module.to(conditions.device)
        for parameter in module.parameters():
            if parameter.ndim == 4:  # nn.Module.to would refuse a network for its three-dimensional convolutions
                parameter.data = parameter.data.contiguous(memory_format=conditions.memory_format)
        counts = self._count(case, module, x)
        memory = forecast_memory(module, x, mode=conditions.mode, dtype=conditions.dtype)
        for compiled in conditions.compiled:
            entry = Entry(subject.name, compiled, **counts._asdict())
            entry.reason = self._too_much(case, entry, memory)
            call = None if entry.reason else self._checked(case, subject, entry, module, x)
            entry.status = LEFT_OUT if entry.reason else entry.status
            entered.append((entry, call))
            if twice and call is not None:
                again = dataclasses.replace(entry, again=True, seconds=[])
                twin = copy.deepcopy(module)
                entered.append((again, self._workload(case, self._run(twin, compiled), x)))
        return entered

    def _count(self, case: Case, module: nn.Module, x: Tensor) -> Counts:
        conditions, network = self.conditions, case.network
        cost = network_cost(module, case.input_size)
        flops = cost.flops
        if conditions.mode == "step":
            flops = step_flops(module, case.input_size, input_gradient=not network)
        shape = cost.modules[0].output_shape
        assert shape is not None, module  # everything that is measured returns one tensor
        output = len(x) * torch.Size(shape).numel() * x.itemsize
        traffic = least_traffic(module, x, output, mode=conditions.mode, network=network)
        return Counts(cost.parameters, flops * len(x), traffic)

    def _too_much(self, case: Case, entry: Entry, memory: int) -> str | None:
        """Return why the entry is not to run, if it would take too much memory or time."""
        conditions = self.conditions
        if memory > conditions.max_memory:
            return f"would need {memory / 2**30:.1f} GiB"
        if last := self.last.get((case.group, entry.name, entry.compiled)):
            positions, flops, seconds = last
            assert entry.flops is not None  # counted
            forecast = seconds * max(case.positions / positions, entry.flops / flops if flops else 0.0)
            if forecast > conditions.max_seconds:
                return f"would take about {forecast:.0f} s"
        return None

    def _checked(self, case: Case, subject: Subject, entry: Entry, module: nn.Module, x: Tensor) -> Workload | None:
        """Check the results of an entry, then its peak of memory; return the call to time if they are right."""
        conditions = self.conditions
        run = self._run(module, entry.compiled)
        try:
            self.progress(case, f"{_label(entry)}: checking")
            gradients = conditions.mode == "step" and not case.network  # a ReLU on the brink upsets a network's
            if subject.reference is not None:
                entry.check = against_reference(
                    run, module, x, subject.reference, dtype=conditions.dtype, gradients=gradients
                )
            elif entry.compiled:
                entry.check = against_eager(run, module, x, dtype=conditions.dtype, gradients=gradients)
            if entry.check is not None and not entry.check.passed:
                entry.status = WRONG
                return None
            call = self._workload(case, run, x)
            call()
            if conditions.device.type != "mps":  # whose allocator counts no peak
                entry.peak_memory = peak_memory(call, conditions.device)
        except (RuntimeError, MemoryError) as error:
            if out_of_memory(error):
                entry.reason = "memory ran out"
                return None
            if not entry.compiled:
                raise
            first_line = (str(error).splitlines() or [type(error).__name__])[0]
            entry.reason = f"cannot be compiled: {textwrap.shorten(first_line, REASON_WIDTH)}"
            return None
        return call

    def _run(self, module: nn.Module, compiled: bool) -> Any:
        return torch.compile(module, dynamic=False) if compiled else module

    def _workload(self, case: Case, run: nn.Module, x: Tensor) -> Workload:
        return Workload(run, x, mode=self.conditions.mode, dtype=self.conditions.dtype, network=case.network)

    def _time(self, case: Case, calls: list[tuple[Entry, Workload]]) -> dict[str, Any]:
        """Time the calls, again while there are unsteady ones; return how quiet the steadiest time was."""
        conditions = self.conditions
        timings = [self._timed(case, calls, "")]
        while timings[-1].unsteady and len(timings) <= conditions.repeats:
            timings.append(self._timed(case, calls, f", repeat {len(timings)} of at most {conditions.repeats}"))
        samples, noisy, others = min(timings, key=lambda timing: sum(timing.unsteady.values()))
        for number, (entry, call) in enumerate(calls):
            entry.repetitions, entry.seconds = samples[number].repetitions, samples[number].seconds
            entry.unsteady = number in noisy
            if case.network:
                spent = operator_seconds(call, conditions.device)
                entry.operators = {n: t for n, t in spent.items() if t >= OPERATORS * sum(spent.values())}
            assert entry.flops is not None  # counted
            self.last[case.group, entry.name, entry.compiled] = case.positions, entry.flops, min(entry.seconds)
        return {"repeats": len(timings) - 1, "other_work": others and dataclasses.asdict(others)}

    def _timed(self, case: Case, calls: list[tuple[Entry, Workload]], which: str) -> Timing:
        """Run all rounds once, and judge them."""
        conditions = self.conditions
        watch = OtherWorkWatch()
        kept = freed_memory_kept() if conditions.mode == "step" else nullcontext()  # as `foveate.train` does
        with kept:
            samples = interleaved(
                {number: call for number, (_, call) in enumerate(calls)},
                rounds=conditions.rounds,
                warmup=conditions.warmup,
                device=conditions.device,
                min_sample=MIN_SAMPLE,
                progress=lambda number: self.progress(
                    case, (f"round {number} of {conditions.rounds}" if number else "warming up") + which
                ),
            )
        others = watch.since()
        noisy: dict[int, float] = {}
        for compiled in conditions.compiled:
            ran = {n: entry for n, (entry, _) in enumerate(calls) if entry.compiled == compiled}
            first = [n for n, entry in ran.items() if entry.name == case.subjects[0].name]
            if first:
                again = first[1] if len(first) > 1 else None
                seconds = {n: samples[n].seconds for n in ran}
                noisy |= unsteady(seconds, first[0], again, max_noise=conditions.max_noise)
        return Timing(samples, noisy, others)


def _label(entry: Entry) -> str:
    return f"{entry.name}, compiled" if entry.compiled else entry.name
