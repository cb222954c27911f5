"""The result of a benchmark as tables: one for each case, mode and dtype."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from foveate.benchmark import Quartiles, paired_ratios, quartiles
from studies.bench.measurement import LEFT_OUT, MEASURED, WRONG

__all__ = ["entry_label", "heading", "ratio", "to_markdown"]

GIB = 2**30
KINDS = {
    "forward": "forward in inference",
    "step": "forward and backward",
    "network step": "forward, backward and the optimiser's step",
}


def to_markdown(result: Mapping[str, Any]) -> str:
    """Return the tables of a suite, with what was measured on, how, and how to read it."""
    parts = [f"# {result['title']}", *_preamble(result)]
    for case in result["cases"]:
        parts += [f"## {heading(case)}", _table(case, result["ceilings"][case["dtype"]])]
        parts += [*_quiet(case), *_operators(case)]
    return "\n\n".join(parts) + "\n"


def heading(case: Mapping[str, Any]) -> str:
    """Say what a table is of."""
    kind = KINDS[f"network {case['mode']}" if case["network"] and case["mode"] == "step" else case["mode"]]
    batch, *size = case["input"]
    of = f"{batch} image{'s' if batch > 1 else ''} of {'×'.join(map(str, size))}"
    return f"{case['case']}: {kind}, {case['dtype']}, {of}"


def entry_label(entry: Mapping[str, Any]) -> str:
    """Return the name of a subject, and how it runs."""
    return entry["name"] + (", compiled" if entry["compiled"] else "") + (", again" if entry["again"] else "")


def ratio(case: Mapping[str, Any], entry: Mapping[str, Any]) -> Quartiles | None:
    """Return the time of an entry over that of the case's base that ran as it does, round by round, if both ran."""
    first = case["entries"][0]["name"]
    bases = (e for e in case["entries"] if e["name"] == first and e["compiled"] == entry["compiled"] and not e["again"])
    return _paired(entry, next(bases, None))


def _paired(entry: Mapping[str, Any], base: Mapping[str, Any] | None) -> Quartiles | None:
    if base is None or base is entry or not (entry["seconds"] and base["seconds"]):
        return None
    return paired_ratios(entry["seconds"], base["seconds"])


def _best_ratio(case: Mapping[str, Any], entry: Mapping[str, Any]) -> Quartiles | None:
    """Return the same of a subject's fastest entry over the base's fastest one; nothing for other entries."""
    base, own = _fastest(case, case["entries"][0]["name"]), _fastest(case, entry["name"])
    return _paired(entry, base) if entry is own else None


def _fastest(case: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    entries = [e for e in case["entries"] if e["name"] == name and e["seconds"] and not e["again"]]
    return min(entries, key=lambda e: quartiles(e["seconds"]).median, default=None)


def _preamble(result: Mapping[str, Any]) -> list[str]:
    settings, machine = result["settings"], result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    where = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / GIB:.0f} GiB"
    if "gpu" in machine:
        where = f"{machine['gpu']['name']}, CUDA {machine['gpu']['cuda']} ({where})"
    switches = "".join(f", {name}={value}" for name, value in machine["environment"].items())
    roofline = "; ".join(
        f"{dtype}: {c['flops_per_second'] / 1e9:,.0f} GFLOP/s in a matrix product, "
        f"{c['bytes_per_second'] / 1e9:.1f} GB/s in a copy"
        for dtype, c in result["ceilings"].items()
    )
    best = ["*best* compares each in its faster way, eager or compiled."] if settings["compiled"] == "both" else []
    return [
        *([] if result["complete"] else ["**Incomplete: the run was interrupted.**"]),
        f"{machine['date']} on {where}, threads={machine['threads']}{switches}, "
        f"load average {machine['load_average']:.2f} at the start; {versions}, Python "
        f"{machine['python']}, {machine['system']}. Layout {settings['memory_format']}, seed {settings['seed']}. "
        f"Ceilings as measured here: {roofline}.",
        f"Each of {settings['rounds']} rounds ran all subjects of a table once: *ms* is the median of one call with "
        "its quartiles; *× base* that of the ratio to the first row in the same round, and *again* the first row, "
        "entered a second time: no difference smaller than its own means anything. "
        + " ".join([*best, "*+MB* is the memory that a call adds to weights and input at its peak (10⁶ bytes)."]),
        "GFLOP counts 2 per multiply-add, and no FFT; *min MB* is what has to be read and written whatever happens in "
        "between. The shares are of the machine's ceilings; what stays in caches can go beyond that of a copy. *error* "
        "is the relative L2 error of the output (and the largest of a gradient) against a slower way to the same at "
        "this very shape: float64 for ours, eager for what others' modules are compiled to.",
        *result["notes"],
    ]


Column = tuple[str, Callable[[Mapping[str, Any]], str]]


def _table(case: Mapping[str, Any], roofline: Mapping[str, float]) -> str:
    both = len({entry["compiled"] for entry in case["entries"]}) > 1
    columns: list[Column] = [
        ("subject", entry_label),
        ("ms", _milliseconds),
        ("× base", lambda e: _ratio(e, ratio(case, e))),
        *([("× base, best", lambda e: _ratio(e, _best_ratio(case, e)))] if both else []),
        ("+MB", lambda e: _scaled(e["peak_memory"], 1e6, ".1f")),
        ("params k", lambda e: _scaled(e["parameters"], 1e3, ",.1f")),
        ("GFLOP", lambda e: _scaled(e["flops"], 1e9, ".3f")),
        ("of product", lambda e: _share(e, "flops", roofline["flops_per_second"])),
        ("min MB", lambda e: _scaled(e["traffic"], 1e6, ".1f")),
        ("of copy", lambda e: _share(e, "traffic", roofline["bytes_per_second"])),
        ("error", _error),
    ]
    rows = [[text for text, _ in columns], *([cell(entry) for _, cell in columns] for entry in case["entries"])]
    return _markdown(rows)


def _quiet(case: Mapping[str, Any]) -> list[str]:
    """Say what else ran on the cores, and what is too noisy to be told; nothing of results that do not know."""
    if "repeats" not in case:
        return []
    others, repeats = case["other_work"], case["repeats"]
    if others is None:
        said = "What else ran on the cores is not known."
    else:
        said = (
            f"During the rounds other processes took {others['processes']:.0%} of the cores' time, and other guests of "
            f"the machine {others['stolen']:.0%}."
        )
    if repeats:
        said += f" Measured again {repeats} time{'s' if repeats > 1 else ''} because of noise."
    if any(entry["unsteady"] for entry in case["entries"]):
        said += " *Unsteady* is what stayed too noisy: only the quartiles of its ratio are given."
    return [said]


def _operators(case: Mapping[str, Any]) -> list[str]:
    """Return the table of the operators that take most of each network's time, if they were counted."""
    entries = [e for e in case["entries"] if e.get("operators") and not e["again"]]
    if not entries:
        return []
    rows = [
        [entry_label(e), ", ".join(f"{name} {1e3 * seconds:.1f}" for name, seconds in e["operators"].items())]
        for e in entries
    ]
    head = "Where the time goes, in ms of one call under the profiler (*compiled*: all kernels of torch.compile's):"
    return [head, _markdown([["subject", "operators"], *rows])]


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    rows = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(
        "| "
        + " | ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        + " |"
        for row in (rows[0], rule, *rows[1:])
    )


def _milliseconds(entry: Mapping[str, Any]) -> str:
    if entry["status"] == LEFT_OUT:
        return entry["reason"]
    if entry["status"] == WRONG:
        return "**wrong: not published**"
    return _spread(Quartiles(*(1e3 * seconds for seconds in quartiles(entry["seconds"]))))


def _ratio(entry: Mapping[str, Any], figure: Quartiles | None) -> str:
    if figure is None or not entry.get("unsteady"):
        return _spread(figure)
    return f"**unsteady** ({_digits(figure.q1)} to {_digits(figure.q3)})"


def _spread(figure: Quartiles | None) -> str:
    return "" if figure is None else f"{_digits(figure.median)} ({_digits(figure.q1)} to {_digits(figure.q3)})"


def _digits(value: float) -> str:
    """Return four digits, three of them behind the point at most."""
    return f"{value:.3f}" if value < 10 else f"{value:.2f}" if value < 100 else f"{value:.1f}"


def _scaled(value: int | None, unit: float, form: str) -> str:
    return "" if value is None else format(value / unit, form)


def _share(entry: Mapping[str, Any], what: str, limit: float) -> str:
    if entry["status"] != MEASURED:
        return ""
    return f"{entry[what] / quartiles(entry['seconds']).median / limit:.0%}"


def _error(entry: Mapping[str, Any]) -> str:
    errors = [] if entry["check"] is None else entry["check"]["errors"]
    return " ".join("not finite" if error is None else f"{error:.0e}" for error in errors)
