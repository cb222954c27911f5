"""All experiments again, from their images on: ``python -m studies.rerun`` (``make evidence RERUN=1``).

Each is prepared, trained and collected by the commands in the headers of its recipes. What is finished is kept, so that
the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from foveate._signals import raising_sigterm
from studies._command import FAILED

__all__ = ["EXPERIMENTS", "SOURCES", "Experiment", "commands", "main"]

ROOT = Path(__file__).parents[1]
SOURCES = {
    "tiny-imagenet": "100 classes of Tiny ImageNet in tar files, as recipes/photographs/prepare.py describes them",
    "cifar100": "CIFAR-100 as images, as recipes/cifar100/prepare.py describes them",
    "flowers": "Oxford Flowers as images, as recipes/flowers/prepare.py describes them",
    "camvid": "CamVid as images and masks, as recipes/streets/prepare.py describes them",
    "bccd": "BCCD as VOC files, as docs/data.md describes them",
}
"""What has to be fetched, by the option that names its folder."""


class Experiment(NamedTuple):
    """An experiment, whose tables are in the folder of its name in ``results``."""

    source: str
    """One of `SOURCES`."""
    out: str
    """Where its images are laid out."""
    recipes: tuple[str, ...]
    study: str
    """That makes its tables: ``evidence`` or ``dense``."""
    evidence: str
    """Recipe of its tables."""
    prepare: str = ""
    """Folder in ``recipes`` of the script that lays the images out; without one they are as they have to be."""
    options: tuple[str, ...] = ()
    """Of that script."""
    imports: tuple[str, ...] = ()
    """Modules that its networks are in."""


EXPERIMENTS = {
    "photographs": Experiment(
        "tiny-imagenet", "data", ("photographs", "photographs-explained"), "evidence", "evidence", "photographs"
    ),
    "cifar100": Experiment(
        "cifar100", "data", ("cifar100", "cifar100-explore"), "evidence", "evidence-cifar100", "cifar100"
    ),
    "flowers-compare": Experiment(
        "flowers",
        "data/flowers-compare",
        ("flowers-compare",),
        "evidence",
        "evidence-flowers-compare",
        "flowers",
        ("--compare",),
        ("recipes.flowers.cbam",),
    ),
    "streets": Experiment("camvid", "data/streets", ("streets",), "dense", "evidence-streets", "streets"),
    "streets-pretrained": Experiment(
        "camvid", "data/streets", ("streets-pretrained",), "dense", "evidence-streets-pretrained", "streets"
    ),
    "cells": Experiment("bccd", "data/bccd", ("cells",), "dense", "evidence-cells"),
    "cells-pretrained": Experiment("bccd", "data/bccd", ("cells-pretrained",), "dense", "evidence-cells-pretrained"),
}


def commands(name: str, source: Path) -> list[list[str]]:
    """Return the commands that make the experiment ``name`` of the images in ``source``, each a list of words."""
    wanted = EXPERIMENTS[name]
    imports = [word for each in wanted.imports for word in ("--import", each)]
    foveate = [sys.executable, "-m", "foveate", *imports]
    runs = [f"runs/{recipe}" for recipe in wanted.recipes]
    script = f"recipes/{wanted.prepare}/prepare.py"
    laid_out = [[sys.executable, script, str(source), "--out", wanted.out, *wanted.options]] if wanted.prepare else []
    trained = [
        [*foveate, "compare", "--config", f"recipes/{recipe}.yaml", "--out", out]
        for recipe, out in zip(wanted.recipes, runs, strict=True)
    ]
    collected = [word for out in runs for word in ("--collect", out)]
    study = [sys.executable, "-m", f"studies.{wanted.study}", *imports]
    return [*laid_out, *trained, [*study, "--config", f"recipes/{wanted.evidence}.yaml", *collected]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiments that are named, or all; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m studies.rerun", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help=f"of {', '.join(EXPERIMENTS)}; all by default")
    for source, content in SOURCES.items():
        parser.add_argument(f"--{source}", type=Path, metavar="FOLDER", help=content)
    given = vars(parser.parse_args(argv))
    names = given["names"] or list(EXPERIMENTS)
    if unknown := [name for name in names if name not in EXPERIMENTS]:
        parser.error(f"there is no experiment {unknown[0]!r}; those are {', '.join(EXPERIMENTS)}")
    folders = {source: given[source.replace("-", "_")] for source in SOURCES}
    wanted = dict.fromkeys(EXPERIMENTS[name].source for name in names)
    if missing := [source for source in wanted if folders[source] is None or not folders[source].is_dir()]:
        lines = [f"  --{source} FOLDER  {SOURCES[source]}" for source in missing]
        parser.error("\n".join(["these images have to be fetched first, and their folders named:", *lines]))
    try:
        with raising_sigterm():
            return next(filter(None, (_run(name, folders[EXPERIMENTS[name].source]) for name in names)), 0)
    except KeyboardInterrupt as interrupt:  # between two commands
        return _code_of(interrupt)


def _run(name: str, source: Path) -> int:
    wanted = EXPERIMENTS[name]
    if not wanted.prepare:
        _copy(source, ROOT / wanted.out)
    for command in commands(name, source.resolve()):
        print(f"\n$ {' '.join(command)}", flush=True)
        code = _finish(subprocess.Popen(command, cwd=ROOT))
        if code:
            return code if code > 0 else FAILED
    return 0


def _copy(source: Path, folder: Path) -> None:
    """Copy a folder, whole or not at all; one that is there is left as it is."""
    if folder.exists():
        return
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial)
    partial.rename(folder)


def _finish(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process and return its exit code: a signal is its own to answer, for it saves what it has."""
    told = 0
    while True:
        try:
            return process.wait() or told
        except KeyboardInterrupt as interrupt:
            told = _code_of(interrupt)
            if told == 128 + signal.SIGTERM:  # Ctrl-C in a terminal reaches both
                process.terminate()
            print("\nwaiting for it to save what it has …", file=sys.stderr, flush=True)


def _code_of(interrupt: KeyboardInterrupt) -> int:
    return 128 + getattr(interrupt, "signum", signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
