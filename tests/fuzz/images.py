"""Unusual and broken images: each decoded as it should be, or named and counted, in bounded memory."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

from foveate.data import UnreadableImageError, make_loader, read_image
from foveate.data.decoding import MAX_PIXELS
from foveate.data.folder import FolderImages, Labelled
from foveate.data.transforms import TransformConfig
from tests.fuzz.outcome import Outcome
from tests.fuzz.pictures import Picture, largest, pictures

BYTES_PER_PIXEL = 24
"""What decoding may take beside what the process had, for an image of as many pixels as are allowed."""
BESIDES = 2**28
"""What else a process may need, for instance for libraries that are loaded when they are first used."""
ALLOWED = MAX_PIXELS * BYTES_PER_PIXEL + BESIDES
BATCH = 8


def run(trials: int, seed: int) -> Outcome:
    """Read ``trials`` images in a process of limited memory; then the three that need the most, if there are 100."""
    found = [*pictures(trials, seed), *(largest() if trials >= 100 else [])]
    with tempfile.TemporaryDirectory() as folder:
        for index, picture in enumerate(found):
            (Path(folder) / f"{index:04d}{picture.ending}").write_bytes(picture.content)
        lines, crashes, said = _read_all(Path(folder), len(found))
        outcome = Outcome(trials=len(found), counts=dict.fromkeys(("crashes", "decoded", "named and counted"), 0))
        outcome.counts["crashes"] = len(crashes)
        outcome.failures += [f"{crash}: {found[crash].kind}: the process died: {said}" for crash in crashes]
        for index, picture in enumerate(found):
            if index in crashes:
                continue
            outcome.count("decoded" if lines[index]["size"] else "named and counted")
            if fault := _fault(picture, lines[index], Path(folder) / f"{index:04d}.npy"):
                outcome.failures.append(f"{index}: {picture.kind}{picture.ending}: {fault}")
        outcome.counts["whole images in unusual modes, their pixels compared"] = sum(
            p.expected is not None for p in found
        )
        if not crashes:
            outcome.failures += _counted(Path(folder), found, lines)
            peak = lines[len(found)]["peak"]
            outcome.counts["MiB, peak of memory above that of the idle process"] = round(peak / 2**20)
    outcome.notes.append(
        f"The process could not take more than {ALLOWED / 2**30:.2f} GiB beside what it had before the first image."
    )
    return outcome


def _read_all(folder: Path, number: int) -> tuple[dict[int, dict], list[int], str]:
    """Return a line for each image, as read by a child, and those at which one died."""
    lines: dict[int, dict] = {}
    crashes: list[int] = []
    said = ""
    while len(lines) + len(crashes) < number:
        start = max([*lines, *crashes], default=-1) + 1
        command = [sys.executable, "-m", "tests.fuzz.images", str(folder), str(start)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        for line in map(json.loads, done.stdout.splitlines()):
            lines[line["index"]] = line
        if done.returncode:
            crashes.append(max([*lines, *crashes], default=-1) + 1)
            said = f"code {done.returncode}, {done.stderr[-300:]}"
    return lines, crashes, said


def _fault(picture: Picture, line: dict, pixels: Path) -> str:
    """Return what is wrong about what came of a picture; nothing, if it is as it should be."""
    if line["error"] is not None:
        if not line["named"]:
            return f"an error that does not name the file: {line['error']}"
        if "MemoryError" in line["error"] or picture.expected is not None:
            return f"refused: {line['error']}"
        return ""
    width, height = line["size"]
    if picture.refused:
        return f"decoded, to {width}×{height}"
    if line["mode"] != "RGB" or width * height > MAX_PIXELS:
        return f"decoded to {line['mode']} of {width}×{height}"
    if picture.expected is None:
        return ""
    got = np.load(pixels)
    if got.shape != picture.expected.shape:
        return f"decoded to {got.shape}, where {picture.expected.shape} was stored"
    off = np.abs(got - picture.expected.astype(float)).mean()
    return "" if off <= picture.tolerance else f"off by {off:.1f} levels"


def _counted(folder: Path, found: list[Picture], lines: dict[int, dict]) -> list[str]:
    """Return whether a loader leaves out those images that cannot be read and no other."""
    small = [i for i in range(len(found)) if not lines[i]["size"] or max(lines[i]["size"]) <= 1000]
    paths = [str(folder / f"{index:04d}{found[index].ending}") for index in small]
    images = FolderImages([Labelled(path, index) for index, path in zip(small, paths, strict=True)])
    loader = make_loader(
        images,
        transform=TransformConfig(img_size=(16, 16)),
        batch_size=BATCH,
        training=False,
        max_bad_images=len(small),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = [label for _, labels in loader for label in labels.tolist()]
    bad = {int(Path(item.path).stem) for item in loader.bad_images}
    wanted = [index for index in small if lines[index]["size"]]
    if seen != wanted or bad != set(small) - set(wanted):
        return [f"the loader gave {len(seen)} and counted {len(bad)} bad ones, where {len(wanted)} can be read"]
    return []


def _child(folder: Path, start: int) -> None:
    """Read the images from number ``start`` on; print what came of each, and the peak of memory."""
    warnings.simplefilter("ignore")
    sizes = Path("/proc/self/statm").read_text().split()
    limit = int(sizes[0]) * resource.getpagesize() + ALLOWED
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    before = _memory("VmRSS")
    paths = sorted(path for path in folder.iterdir() if path.suffix != ".npy" and int(path.stem) >= start)
    for path in paths:
        line: dict = {"index": int(path.stem), "error": None, "named": False, "size": None, "mode": None}
        try:
            image = read_image(path)
            line |= {"size": image.size, "mode": image.mode}
            if max(image.size) <= 1000:
                np.save(path.with_suffix(".npy"), np.asarray(image))
            del image
        except UnreadableImageError as error:
            line |= {"error": str(error), "named": str(path) in str(error)}
        except Exception as error:
            line |= {"error": repr(error)}
        _say(line)
    _say({"index": start + len(paths), "peak": _memory("VmHWM") - before})


def _say(line: dict) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _memory(which: str) -> int:
    """Return a number of bytes that Linux keeps of this process."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[which].split()[0]) * 1024


if __name__ == "__main__":
    _child(Path(sys.argv[1]), int(sys.argv[2]))
