"""A comparison from its settings to the tables that it leaves."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from foveate._devices import check_device
from foveate._imports import known_to_all
from foveate._signals import Interrupted, raising_sigterm
from foveate.benchmark.machine import cores, memory
from foveate.comparison.config import CompareConfig
from foveate.comparison.costs import measure_costs
from foveate.comparison.model_spec import ModelSpec
from foveate.comparison.runs import train_all
from foveate.io.environment import environment
from foveate.io.files import read_json, sole_writer, writable_folder, write_json, write_text
from foveate.report.comparison import to_csv, to_markdown
from foveate.tasks import Task, find_task
from foveate.training.api import configured
from foveate.training.build import Data, build, configured_task, is_known_to_all
from foveate.training.distributed import check_single_process
from foveate.training.run_folder import RESULT
from foveate.training.settings import TrainSettings
from foveate.training.settings_file import CONFIG, check_unchanged, read_settings, to_yaml
from foveate.training.train_state import find_checkpoint
from foveate.training.trainer import limited_threads

__all__ = ["COMPARISON", "compare", "compare_networks"]

COMPARISON = "compare.json"
SMALL = 5_000_000
"""Parameters below which a network trains faster beside others with a thread each than with all threads."""
MEMORY_OF_RUN = 2 * 2**30
"""Bytes that a run beside others is taken to need: half of it are the libraries."""


def compare(
    models: Sequence[str] | CompareConfig,
    data: str | Path | Data | None = None,
    *,
    task: str | type[Task] | None = None,
    verbose: bool = True,
    **settings: Any,
) -> dict[str, Any]:
    """Train networks with paired seeds and compare them to the first; what ``foveate compare`` does.

        table = foveate.compare(["resnet26d", "gsa_resnet26"], "photographs", epochs=30, seeds=5)
        table["networks"][1]["difference"]  # mean, interval, p-value

    The folder ``out`` holds ``compare.json``, ``compare.csv``, ``compare.md``, and each run in ``NETWORK/seed-K``. Runs
    go seed by seed, so that an interrupted comparison has pairs to compare; run again, it leaves out the finished runs
    and resumes the unfinished ones. Networks and seeds may be added to a comparison; its protocol may not change.

    Args:
        models: Names of the networks, each with keywords of its own if need be (``gsa_resnet26:stem=small``), or all
            settings as a `CompareConfig`. The first is what the others are compared to.
        data: As `foveate.train` takes it.
        task: What is learned, by default classification: a name, or a subclass of `foveate.tasks.Task`.
        verbose: Print a line per run and the table.
        settings: Any other field of `CompareConfig`, such as ``seeds``, ``epochs``, ``out`` and ``jobs``.

    Returns:
        What ``compare.json`` holds. ``networks`` is a list in the order of ``models``; each has ``label``, ``model``,
        ``model_args``, ``runs`` (folders relative to ``out``), the mean score by the name of the task's metric
        (``top1``; see `foveate.stats.mean_score`), ``difference`` (to the first, None for the first itself; see
        `foveate.stats.paired_difference`), what `measure_costs` returns, and ``seconds`` (of training, all runs).

    Raises:
        ValueError: A setting is wrong or not the one that the folder was started with, or another process compares
            in the folder.
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    if isinstance(models, str):
        raise ValueError(f"models must be a list of names; got {models!r}; give [{models!r}, …]")
    given = list(models) if isinstance(models, Iterable) else models
    config, opened = configured(CompareConfig, "models", given, data, task, settings)
    return compare_networks(config, data=opened, verbose=verbose)


def compare_networks(config: CompareConfig, *, data: Data | None = None, verbose: bool = True) -> dict[str, Any]:
    """Compare by a configuration; the part of `compare` below its conveniences.

    Images that were opened already are trained on in this process alone, one run after the other.
    """
    config.check()
    check_single_process("foveate compare")
    device = check_device(config.device, config.precision)
    out, elsewhere = Path(config.out), data is None
    data = data or config.open()
    begun = read_settings(out / CONFIG, config)
    if begun is None and elsewhere:
        config.check_augmentation(data.transform)
    if begun is not None and config.threads is None:
        config = dataclasses.replace(config, threads=begun["threads"])
    runs = [config.run_of(spec, seed) for seed in range(config.seeds) for spec in config.models]
    for one in runs:
        one.check()
    for folder, wanted in [(out, config), *((one.folder, one) for one in runs)]:
        check_unchanged(folder / CONFIG, wanted, but=("models", "seeds"))
    samples = configured_task(runs[0], data).samples
    data.loaders(batch_size=config.batch_size, workers=config.workers, seed=0, samples=samples)
    tested = "val" if data.test is None else "test"
    if len(config.models) > 1 and data.length(tested) < 2:
        raise ValueError(f"{config.data} has {data.length(tested)} image in {tested}; a comparison needs at least 2")
    sizes = [_size(config, spec, data) for spec in config.models]
    small = device.type == "cpu" and max(sizes) < SMALL
    if begun is None and config.threads is None and small:
        config = dataclasses.replace(config, threads=1)
        runs = [dataclasses.replace(one, threads=1) for one in runs]
    jobs = _jobs(config, small) if elsewhere else 1
    with sole_writer(writable_folder(out)):
        check_unchanged(out / CONFIG, config, but=("models", "seeds"))  # another process may have begun meanwhile
        write_text(out / CONFIG, to_yaml(config))
        try:
            with raising_sigterm():
                results = train_all(runs, data, jobs, verbose=verbose)
                with limited_threads(config.threads):
                    costs = measure_costs(config, data, device)
                    threads = torch.get_num_threads()
        except KeyboardInterrupt as error:
            signum = getattr(error, "signum", signal.SIGINT)
            raise Interrupted(signum, "run the same command again to go on from here") from error
        measured = {"threads": threads, "environment": environment(device)}
        table = _table(config, data, results, costs) | measured
        write_json(out / COMPARISON, table)
        write_text(out / "compare.csv", to_csv(table))
        write_text(out / "compare.md", to_markdown(table))
    if verbose:
        print(f"\n{to_markdown(table)}\nsaved in {out}: {COMPARISON}, compare.csv, compare.md")
    return read_json(out / COMPARISON)


def _table(
    config: CompareConfig, data: Data, results: list[dict[str, Any]], costs: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Return what ``compare.json`` holds, but for the environment."""
    task = configured_task(config.run_of(config.models[0], 0), data)
    by_network = [results[index :: len(config.models)] for index in range(len(config.models))]
    scores = [[result[task.per_image] for result in trained] for trained in by_network]
    networks = [
        {
            "label": spec,
            "model": trained[0]["model"],
            "model_args": trained[0]["config"]["model_args"],
            "runs": [str(config.run_of(spec, seed).folder.relative_to(config.out)) for seed in range(config.seeds)],
            task.metric: dataclasses.asdict(task.score(own)),
            "difference": None if own is scores[0] else dataclasses.asdict(task.difference(own, scores[0])),
            "seconds": sum(result["seconds"] for result in trained),
            **costs[spec],
        }
        for spec, trained, own in zip(config.models, by_network, scores, strict=True)
    ]
    return {
        "data": config.data,
        "split": results[0]["split"],
        "images": results[0]["images"],
        "image_size": list(data.image_size),
        "batch_size": config.batch_size,
        "layout": "NHWC" if config.channels_last else "NCHW",
        "seeds": list(range(config.seeds)),
        "metric": task.metric,
        "metric_title": task.metric_title,
        "networks": networks,
        "protocol": {field.name: getattr(config, field.name) for field in dataclasses.fields(TrainSettings)},
    }


def _size(config: CompareConfig, spec: str, data: Data) -> int:
    """Return the number of parameters of a network; pretrained weights must be there unless all its runs have begun."""
    run, runs = config.run_of(spec, 0), [config.run_of(spec, seed).folder for seed in range(config.seeds)]
    if all((folder / RESULT).exists() or find_checkpoint(folder) for folder in runs):
        run = dataclasses.replace(run, pretrained=False)
    return sum(parameter.numel() for parameter in build(run, data)[0].parameters())


def _jobs(config: CompareConfig, small: bool) -> int:
    elsewhere = [spec for spec in config.models if not is_known_to_all(ModelSpec.parse(spec).model)]
    known = not elsewhere and known_to_all(find_task(config.task).__module__)
    if config.jobs is None:
        most = min(cores() // (config.threads or cores()), memory() // MEMORY_OF_RUN)
        return max(1, most) if small and known else 1
    if config.jobs > 1 and not known:
        what = elsewhere[0] if elsewhere else f"task {config.task}"
        raise ValueError(
            f"{what} is registered by this process alone, so others cannot train it; leave out jobs, or "
            "register it in a module: `foveate --import MODULE compare …`"
        )
    return config.jobs
