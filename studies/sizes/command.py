"""``python -m studies.sizes``: what trained networks are worth on larger images, and what helps."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foveate import _checks
from foveate._imports import import_again
from foveate.data import ImageData
from foveate.data.dense import DenseData
from foveate.data.digits import DEFAULT_CLUTTER, DEFAULT_SIZE
from foveate.io import load_network
from foveate.io.checkpoint import WEIGHTS
from foveate.io.environment import environment
from foveate.io.files import read_json, writable_folder, write_bytes, write_json, write_text
from foveate.models import resize_relative_tables, scale_reach
from foveate.models.inspection import attention_modules
from foveate.models.tables import relative_tables
from foveate.training import TrainConfig, TrainingModule, check_device, predict
from foveate.training.build import configured_task, normalized
from studies.sizes.report import draw, to_markdown
from studies.trained import runs_of, spec_of

__all__ = ["AS_TRAINED", "MAGNIFIED", "WIDER", "SizesConfig", "run"]

AS_TRAINED = "as trained"
MAGNIFIED = "objects as much larger"
WIDER = "more around the objects"


@dataclass(kw_only=True)
class SizesConfig:
    """Evaluate trained networks of any task on images larger than those of the training.

    Digits are drawn as much larger, and then on canvases as much larger with digits as large as before, as densely
    cluttered; the images of a folder are resized to the larger input. Each network is evaluated as it was
    trained, which leaves global self-attention a window and explicit attention its radius in positions, and with its
    relative tables stretched or its radii scaled, if it has any.

    Attributes:
        checkpoints: Folders of runs, or of comparisons, which stand for all of their runs.
        factors: Sizes of the images, in sizes of the training.
        batch_size: Images per step.
        jobs: Networks evaluated side by side; with more than one, each in a process of one thread.
        out: Folder for sizes.json, sizes.md and sizes.svg.
        device: As in foveate train.
    """

    checkpoints: list[str] = field(default_factory=list)
    factors: list[float] = field(default_factory=lambda: [1.0, 1.5, 2.0, 4.0])
    batch_size: int = 16
    jobs: int = 1
    out: str = "runs/sizes"
    device: str = "auto"

    def check(self) -> None:
        """Raise a `ValueError` that names the first setting that is out of its range."""
        if not self.checkpoints:
            raise ValueError("no networks given; name the folders of runs or of a comparison, as in runs/digits")
        for factor in self.factors:
            _checks.number("each of factors", factor, minimum=1, maximum=16)
        if 1 not in self.factors or len(set(self.factors)) < 2:
            raise ValueError(f"factors must hold 1, which others are compared to, and others; got {self.factors}")
        _checks.integer("batch_size", self.batch_size)
        _checks.integer("jobs", self.jobs)


def run(config: SizesConfig) -> dict[str, Any]:
    """Evaluate, print the table, and save it with its figure in ``config.out``.

    What an interruption leaves is taken up by the same call, for networks whose weights are the same.

    Returns:
        What ``sizes.json`` holds. ``rows`` is a list with, for each network, scene, factor and variant: ``label``,
        ``task``, ``metric``, ``scene`` (None at the size of the training), ``factor``, ``variant``, ``seeds``, the
        ``score`` (see `foveate.stats.mean_score`), the ``difference`` to the same networks at the size of their
        training, and the ``gain`` over the same networks as they were trained, on the same images.

    Raises:
        ValueError: A setting is wrong, there are no such runs, or a seed of a network is given twice.
    """
    config.check()
    device = check_device(config.device, "32-true")
    out = writable_folder(Path(config.out))
    networks: dict[tuple[str, str], list[Path]] = {}  # by label and task
    for label, path in [one for given in config.checkpoints for one in runs_of(Path(given))]:
        networks.setdefault((label_of(label, path), _settings(path).task), []).append(path)
    for (label, _), paths in networks.items():
        seeds = [_settings(path).seed for path in paths]
        if len(set(seeds)) < len(seeds):
            raise ValueError(
                f"{label} is given twice with one seed, among {', '.join(map(str, paths))}; name each run once, and "
                "networks that differ in more than their seed by a comparison of them"
            )
    keys = {_key(config, label, paths): (label, paths) for (label, _), paths in networks.items()}
    part = out / "sizes.part.json"  # what an interruption leaves
    done = read_json(part) if part.is_file() else {}
    left = [key for key in keys if key not in done]
    labels, folders = [keys[key][0] for key in left], [keys[key][1] for key in left]
    with _mapping(config.jobs) as mapping:
        for key, found in zip(left, mapping(partial(_rows, config, device), labels, folders), strict=True):
            print(f"{found[0]['label']}: evaluated", file=sys.stderr)
            done[key] = found
            write_json(part, done)
    rows = [row for key in keys for row in done[key]]
    write_json(out / "sizes.json", {"rows": rows, "factors": config.factors, "environment": environment(device)})
    part.unlink(missing_ok=True)
    table = read_json(out / "sizes.json")
    write_text(out / "sizes.md", to_markdown(table))
    write_bytes(out / "sizes.svg", draw(table))
    print(to_markdown(table))
    return table


def label_of(label: str | None, path: Path) -> str:
    """Return what the network of a run is called: as in its comparison, with the sizes that it was trained at."""
    settings = read_json(path / "result.json")["config"]
    low, high = settings.get("img_scale", (1.0, 1.0))
    trained = "" if low == high == 1 else f" (trained at {low:g} to {high:g})"
    return f"{label or spec_of(settings)}{trained}"


def _key(config: SizesConfig, label: str, paths: Sequence[Path]) -> str:
    """Return what tells an evaluation from others: its settings, the network and its weights."""
    weights = [hashlib.sha256((path / WEIGHTS).read_bytes()).hexdigest() for path in paths]
    return json.dumps([config.factors, config.batch_size, label, weights])


@contextmanager
def _mapping(jobs: int) -> Iterator[Any]:
    """Give a function that does what `map` does, in order, by so many processes."""
    if jobs == 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_begin) as pool:
        yield pool.map


def _begin() -> None:
    torch.set_num_threads(1)
    import_again()


def _rows(config: SizesConfig, device: torch.device, label: str, paths: Sequence[Path]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    runs = [_settings(path) for path in paths]
    reference: list[Any] = []
    for scene, factor in _cases(runs[0], config.factors):
        scores: dict[str, list[Any]] = {}
        opened: dict[str, ImageData | DenseData] = {}
        for path, settings in zip(paths, runs, strict=True):
            network, meta = load_network(path)
            at = _larger(settings, factor, scene)
            drawn = repr((at.data_options, at.data_seed)) if at.data == "digits" else str(path)
            if drawn not in opened:
                opened[drawn] = at.open()
            data = normalized(opened[drawn], meta)  # as the weights know images
            task = configured_task(at, data)
            loaders = data.loaders(batch_size=config.batch_size, seed=settings.seed, samples=task.samples)
            images = loaders.val if loaders.test is None else loaders.test
            for variant, adapted in variants(network, factor, data.image_size):
                module = TrainingModule(adapted, settings, task)
                found = dataclasses.asdict(task.evaluate(*predict(module, images, device=device)))
                scores.setdefault(variant, []).append(found[task.per_image])
        as_trained = scores[AS_TRAINED]
        reference = reference or as_trained  # the size of the training comes first
        for variant, own in scores.items():
            row = {
                "label": label,
                "task": task.name,
                "metric": task.metric_title,
                "size": list(data.image_size),
                "scene": scene,
                "factor": factor,
                "variant": variant,
                "seeds": len(paths),
                "images": len(own[0]),
                "score": dataclasses.asdict(task.score(own)),
                "difference": None if own is reference else dataclasses.asdict(task.difference(own, reference)),
                "gain": None if own is as_trained else dataclasses.asdict(task.difference(own, as_trained)),
            }
            rows.append(row)
    return rows


def _cases(settings: TrainConfig, factors: Sequence[float]) -> Iterator[tuple[str | None, float]]:
    """Yield what the images show and how much larger they are, first those of the training."""
    yield None, 1.0
    for scene in (MAGNIFIED, WIDER) if settings.data == "digits" else (MAGNIFIED,):
        yield from ((scene, factor) for factor in sorted(set(factors)) if factor != 1)


def variants(network: nn.Module, factor: float, size: tuple[int, int]) -> Iterator[tuple[str, nn.Module]]:
    """Yield the network as it was trained and, for other sizes, adapted copies of it, by what was done to them."""
    yield AS_TRAINED, network
    if factor == 1:
        return
    if relative_tables(network):
        stretched = resize_relative_tables(copy.deepcopy(network), size)
        if _extent(stretched) > _extent(network):  # some were trained with tables for larger images
            yield "tables stretched", stretched
    if any(module.scalars() for module in attention_modules(network).values()):
        yield "radii scaled", scale_reach(copy.deepcopy(network), factor)


def _extent(network: nn.Module) -> int:
    """Return how far all tables of a network reach together."""
    return sum(sum(module.feat_size) for module in relative_tables(network).values())


def _settings(path: Path) -> TrainConfig:
    settings = read_json(path / "result.json")["config"]
    known = {field.name for field in dataclasses.fields(TrainConfig)}
    return TrainConfig(**{name: value for name, value in settings.items() if name in known})


def _larger(settings: TrainConfig, factor: float, scene: str | None) -> TrainConfig:
    """Return the settings with larger images; digits are drawn as large, or with as much more around them."""
    if settings.data == "digits":
        options: dict[str, Any] = settings.data_options
        side = settings.img_size[0] if isinstance(settings.img_size, list | tuple) else settings.img_size
        size, clutter = options.get("size", side or DEFAULT_SIZE), options.get("clutter", DEFAULT_CLUTTER)
        unit = options.get("unit", size)
        drawn = {**options, "size": round(size * factor), "unit": unit}
        if scene == WIDER:
            drawn["clutter"] = round(clutter * factor**2)
        else:
            drawn["unit"] = round(unit * factor)
        return dataclasses.replace(settings, data_options=drawn, img_size=None)
    height, width = settings.open().image_size
    return dataclasses.replace(settings, img_size=(round(height * factor), round(width * factor)))
