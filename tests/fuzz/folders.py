"""Folders of images as people have them: the images of each class in each split, or exit code 2 and a message.

A folder is made of a plain layout, some harmless changes, and perhaps one that makes it ambiguous or wrong. What must
come of it is known from how it was made: nothing here asks the library.
"""

from __future__ import annotations

import contextlib
import io
import random
import tempfile
import warnings
from pathlib import Path

from foveate import cli
from foveate.data import open_data
from tests.fuzz.harmless_folders import HARMLESS, listed
from tests.fuzz.layouts import Layout, plain, written
from tests.fuzz.outcome import Outcome, progress
from tests.fuzz.wrong_folders import WRONG


def run(trials: int, seed: int) -> Outcome:
    """Open ``trials`` folders."""
    outcome = Outcome(trials=trials, counts={"opened": 0, "exit code 2": 0})
    warnings.simplefilter("ignore")
    for number in progress(range(trials), "folders"):
        rng = random.Random(f"{seed}-{number}")
        layout = plain(rng)
        with tempfile.TemporaryDirectory() as base:
            top = Path(base) / "photos"
            if number % 6 == 0:
                listed(layout, rng)
            else:
                for harmless in rng.sample(HARMLESS, rng.randint(0, 3)):
                    harmless(layout, rng)
            if number % 2:
                WRONG[number // 2 % len(WRONG)](layout, rng)
                layout.refused = True
            contents = written(layout, top, rng)
            fault = _fault(layout, top, contents)
        outcome.count("exit code 2" if layout.refused else "opened")
        outcome.check(not fault, f"{number}: {', '.join(layout.done) or 'plain'}: {fault}")
    return outcome


def _fault(layout: Layout, top: Path, contents: dict[str, dict[str, set[bytes]]]) -> str:
    """Return what is wrong about what comes of a folder; nothing, if all is well."""
    if layout.refused:
        said = io.StringIO()
        out = top.parent / "run"
        command = ["train", "test_resnet", f"--data={top}", f"--out={out}", "--epochs=1", "--device=cpu"]
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = cli.main(command)
        if code != 2 or out.exists():
            return f"exit code {code}"
        return "" if str(top) in said.getvalue() else f"a message that does not name the folder: {said.getvalue()}"
    try:
        data = open_data(top)
    except ValueError as error:
        return f"refused: {error}"
    found: dict[str, dict[str, set[bytes]]] = {}
    for split in ("train", "val", "test"):
        images = getattr(data, split)
        for index, (path, label) in enumerate([] if images is None else images.samples):
            part = "train" if split == "val" and "val" not in contents else split
            found.setdefault(part, {}).setdefault(data.classes[label], set()).add(Path(path).read_bytes())
            if index == 0:
                images[0]  # it can be read
    if set(data.classes) != set(contents["train"]):
        return f"the classes are {data.classes}"
    return "" if found == contents else f"other images: {_sizes(found)} and not {_sizes(contents)}"


def _sizes(found: dict[str, dict[str, set[bytes]]]) -> dict[str, dict[str, int]]:
    return {split: {name: len(images) for name, images in classes.items()} for split, classes in found.items()}
