"""The raw results of an experiment: a small JSON file for each run, from which all else can be made again."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from foveate.comparison.config import folder_name
from foveate.explain import attention_off, attention_records, gradient_shares, parts_of
from foveate.io import load_network
from foveate.io.files import read_json, writable_folder, write_json
from foveate.models.inspection import attention_modules
from foveate.training import TrainConfig, TrainingModule, check_device, predict
from foveate.training.build import configured_task, normalized
from foveate.training.run_folder import RESULT
from studies.differences import finished_runs, label_of

__all__ = ["COSTS", "RAW", "collect", "read_costs", "read_raw", "restore"]

RAW, COSTS = "runs", "costs.json"
KEPT = ("model", "seed", "split", "images", "metrics", "history", "seconds", "config", "environment")
"""What of a run's ``result.json`` is kept; ``correct`` besides, as a string of 0 and 1."""
COST_FIELDS = ("parameters", "flops", "images_per_second", "peak_memory")


def collect(comparison: Path, out: Path, say: Callable[[str], None] = lambda _: None) -> int:
    """Write a raw file for each finished run of a comparison that has none yet, and what the networks cost.

    A run that was made again replaces its raw file. Besides what a run left, a raw file holds what becomes of its
    network without its attention (`attention_off`), the part that the maps have in the gradient, the radii of explicit
    attention and how the rectangles of CRAM vary.

    Returns:
        How many were written.

    Raises:
        ValueError: There is no finished run, or its data are not where they were.
    """
    runs = finished_runs(comparison)
    writable_folder(out / RAW)
    written = 0
    for path in runs:
        label = label_of(path.parts[-3])
        file = out / RAW / f"{path.parts[-3]}.{path.parts[-2]}.json"
        result = read_json(path)
        if "correct" not in result:
            raise ValueError(f"{path} is of no classification; python -m studies.dense collects what it holds")
        raw = {"label": label, **{name: result[name] for name in KEPT}}
        raw["correct"] = "".join(map(str, result["correct"]))
        if file.exists() and raw.items() <= read_json(file).items():
            continue
        raw["attention"] = _attention(path.parent, result)
        write_json(file, raw)
        written += 1
        say(f"{file}: top-1 {result['metrics']['top1']:.2%}")
    _add_costs(comparison, out)
    return written


def restore(out: Path, comparison: Path) -> int:
    """Write a ``result.json`` for each raw result of which a comparison's folder has none, so that it can go on.

    `foveate compare` then leaves these runs out; their weights are not needed for that.

    Returns:
        How many were written.

    Raises:
        ValueError: There are no raw results.
    """
    written = 0
    for label, seeds in read_raw(out).items():
        for seed, raw in seeds.items():
            file = comparison / folder_name(label) / f"seed-{seed}" / RESULT
            if file.exists():
                continue
            writable_folder(file.parent)
            write_json(file, {name: raw[name] for name in (*KEPT, "correct")})
            written += 1
    return written


def read_raw(folder: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Return the raw results in ``folder``, by label and seed.

    Raises:
        ValueError: There are none, one is not what `collect` writes, or two are of the same run.
    """
    files = sorted((folder / RAW).glob("*.json"))
    if not files:
        raise ValueError(f"there are no raw results in {folder / RAW}; --collect RUNS writes them")
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for file in files:
        raw = read_json(file)
        try:
            seeds, seed, correct = found.setdefault(raw["label"], {}), raw["seed"], raw["correct"]
            if not re.fullmatch("[01]+", correct):
                raise ValueError("`correct` is not a string of 0 and 1")
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file} is not a raw result: {error!r}; remove it and collect it again") from error
        if seed in seeds:
            raise ValueError(
                f"{file} is of {raw['label']} with seed {seed}, of which there is another file; remove one"
            )
        seeds[seed] = {**raw, "correct": list(map(int, correct))}
    return found


def read_costs(folder: Path) -> dict[str, dict[str, Any]]:
    """Return parameters, FLOPs, images per second and memory by label; of networks without, nothing."""
    return read_json(folder / COSTS) if (folder / COSTS).is_file() else {}


def _add_costs(comparison: Path, out: Path) -> None:
    if not (comparison / "compare.json").is_file():
        return
    table = read_json(comparison / "compare.json")
    new = {net["label"]: {name: net[name] for name in COST_FIELDS} for net in table["networks"]}
    write_json(out / COSTS, dict(sorted({**read_costs(out), **new}.items())))


def _attention(folder: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what can only be seen in the weights."""
    network, meta = load_network(folder)
    if not attention_modules(network):
        return {}
    config = TrainConfig(**result["config"])
    data = normalized(config.open(), meta)
    task = configured_task(config, data)
    _, val, test = data.loaders(batch_size=config.batch_size, seed=config.seed)
    # The weights are averaged already; an average of its own would be a copy of the network.
    module = TrainingModule(network, dataclasses.replace(config, ema_decay=0.0), task)
    without = {}
    for part in parts_of(network):
        with attention_off(network, part):
            device = check_device("cpu", config.precision)
            without[part] = task.evaluate(*predict(module, val if test is None else test, device=device)).top1
    images, labels = next(iter(val))
    shares = gradient_shares(network, images, labels)
    return {"top1_without": without, "gradient_shares": shares, **_radii(network), **_rectangles(network, images)}


def _radii(network: nn.Module) -> dict[str, Any]:
    scalars = {name: module.scalars() for name, module in attention_modules(network).items()}
    radii = {
        name: dict(zip(("start", "learned"), numbers["radius"], strict=True))
        for name, numbers in scalars.items()
        if "radius" in numbers
    }
    return {"radii": radii} if radii else {}


def _rectangles(network: nn.Module, images: Tensor) -> dict[str, Any]:
    """Return mean and deviation, over images, of what each CRAM predicts: whether the rectangles follow the images."""
    names = ("cx", "cy", "sx", "sy", "angle")
    numbers = {
        record.name: {
            "mean": dict(zip(names, record.numbers.mean(0).tolist(), strict=True)),
            "deviation": dict(zip(names, record.numbers.std(0).tolist(), strict=True)),
        }
        for record in attention_records(network, images)
        if record.numbers is not None
    }
    return {"rectangles": numbers} if numbers else {}
