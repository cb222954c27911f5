"""Run the suite of `make fuzz`: ``python -m tests.fuzz --seed 0 --out results/fuzz [--only modules,images]``.

Of each part there is a ``PART.json`` when it ends, and of all of them the table ``fuzz.md`` and ``fuzz.json``. The exit
code is 1 if a bound was broken.
"""

from __future__ import annotations

import argparse
import logging
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from foveate.io.files import read_json, write_json, write_text
from tests.fuzz.outcome import to_markdown
from tests.fuzz.parts import PARTS

PACKAGES = ("torch", "timm", "pillow", "safetensors", "jsonargparse")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    parser.add_argument("--trials", type=int, help="fewer or more than usual")
    parser.add_argument("--resume", action="store_true", help="leave out parts whose result with this seed is there")
    given = parser.parse_args()
    if unknown := set(given.only.split(",")) - set(PARTS):
        parser.error(f"--only: there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    logging.getLogger("foveate").setLevel(logging.ERROR)  # images that are left out are what is counted here
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.only.split(","):
        file = given.out / f"{name}.json"
        trials = given.trials or PARTS[name].trials
        asked = {"part": name, "seed": given.seed, "asked": trials}
        if given.resume and file.exists() and asked.items() <= read_json(file).items():
            continue
        started = time.perf_counter()
        outcome = PARTS[name].run(trials, given.seed).as_dict()
        seconds = round(time.perf_counter() - started)
        write_json(file, {**asked, **outcome, "seconds": seconds, "environment": environment()})
        said = f"{name:12} {outcome['trials']:6} trials, {outcome['failed']} broke a bound, {seconds} s"
        sys.stdout.write("\n  ".join([said, *outcome["failures"]]) + "\n")
        sys.stdout.flush()
    done = [read_json(given.out / f"{name}.json") for name in PARTS if (given.out / f"{name}.json").exists()]
    write_json(given.out / "fuzz.json", {part["part"]: part for part in done})
    write_text(given.out / "fuzz.md", report(done))
    return int(any(part["failed"] for part in done))


def environment() -> dict[str, str]:
    """Return what the figures depend on."""
    versions = {package: version(package) for package in PACKAGES}
    return {"python": platform.python_version(), "machine": f"{platform.system()}, {platform.machine()}", **versions}


def report(done: list[dict[str, Any]]) -> str:
    """Return the table of all parts, and the figures of each."""
    overview = [
        {
            "part": part["part"],
            "what": PARTS[part["part"]].summary,
            "trials": part["trials"],
            "what happened": "; ".join(f"{what}: {number}" for what, number in part["counts"].items()),
            "broke a bound": part["failed"],
            "seconds": part["seconds"],
        }
        for part in done
    ]
    lines = [f"Seed {done[0]['seed']}. Made by `make fuzz`.", "", to_markdown(overview)]
    for part in done:
        if not (part["notes"] or part["rows"] or part["failures"]):
            continue
        lines += ["", f"### {part['part']}"]
        lines += ["", *part["notes"]] if part["notes"] else []
        lines += ["", to_markdown(part["rows"])] if part["rows"] else []
        lines += ["", *(f"- {failure}" for failure in part["failures"])] if part["failures"] else []
    lines += ["", ", ".join(f"{name} {value}" for name, value in done[0]["environment"].items())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
