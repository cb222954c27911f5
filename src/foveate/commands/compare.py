"""``foveate compare``: several networks under one protocol, with paired seeds, and how sure the differences are."""

from __future__ import annotations

import dataclasses
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import timm
import torch
import yaml

from foveate import _checks
from foveate._extras import require
from foveate._signals import Interrupted
from foveate.benchmark import images_per_second, network_cost, peak_step_memory
from foveate.benchmark.machine import cores
from foveate.commands._runs import train_all
from foveate.commands.protocol import Protocol, check_unchanged, environment, read_settings, to_yaml
from foveate.commands.train import CONFIG, TrainConfig, build, loaders
from foveate.data import ImageData
from foveate.io.files import read_json, writable_folder, write_json, write_text
from foveate.report.comparison import to_csv, to_markdown
from foveate.stats import accuracy, paired_difference
from foveate.training import check_device
from foveate.training.progress import find_checkpoint
from foveate.training.team import check_alone

__all__ = ["CompareConfig", "run"]

Figure = TypeVar("Figure")

OF_ONE_NETWORK = ("lr", "equivariance", "equivariance_shift", "equivariance_rotation", "equivariance_scale")
"""Settings that one network of a comparison may have for itself: a term of the loss that not every network has, and the
learning rate, which need not suit all of them."""


SMALL = 5_000_000
"""Parameters below which a network trains faster beside others with a thread each than with all threads."""


@dataclass(kw_only=True)
class CompareConfig(Protocol):
    """Train several networks under one protocol with paired seeds, and compare them to the first.

    Attributes:
        models: Names of the networks, each with keywords of its own if need be, as in gsa_resnet26:stem=small,
            num_heads=4 (without the space), the equivariance settings and the learning rate among them:
            cram_resnet26:equivariance=1, gsa_resnet26:lr=0.002. The first is what the others are compared to.
        seeds: How many times each is trained, with seeds 0, 1, 2...; equal seeds see the same images in the same order.
        out: Folder of the comparison, with a folder per run. A comparison that was interrupted is continued.
        jobs: Runs side by side, each in a process of its own; the results do not depend on it. Not given: as many as
            there are cores for, where the networks are small and compute on the CPU, else 1.
    """

    models: list[str] = field(default_factory=list)
    seeds: int = 3
    out: str = "runs/compare"
    jobs: int | None = None

    def check(self) -> None:
        """Raise a `ValueError` that names the first setting that is out of its range."""
        if not self.models:
            raise ValueError("no networks given; name them, as in `foveate compare resnet26d gsa_resnet26`")
        if len(set(self.models)) < len(self.models):
            raise ValueError(f"each network can be compared once; got {', '.join(self.models)}")
        super().check()
        _checks.integer("seeds", self.seeds)
        if self.jobs is not None:
            _checks.integer("jobs", self.jobs)

    def run_of(self, spec: str, seed: int) -> TrainConfig:
        """Return the configuration of one run."""
        model, model_args = parse_spec(spec)
        shared = {f.name: getattr(self, f.name) for f in dataclasses.fields(Protocol)}
        shared |= {name: model_args.pop(name) for name in OF_ONE_NETWORK if name in model_args}
        shared["model_args"] = {**self.model_args, **model_args}
        folder = Path(self.out, quote(spec.replace(":", "+", 1), safe="+=, []"), f"seed-{seed}")
        resume = find_checkpoint(folder) is not None
        return TrainConfig(model=model, seed=seed, out=str(folder), resume=resume, **shared)


def parse_spec(spec: str) -> tuple[str, dict[str, Any]]:
    """Split ``name:key=value,key=value`` into the name and the keywords, their values read as YAML.

    Raises:
        ValueError: It is not of this form.
    """
    name, _, keywords = spec.partition(":")
    pairs = re.split(r",(?=\w+=)", keywords) if keywords else []
    load = require("jsonargparse", extra="train").get_loader("yaml")  # the rules of --config: 1e-3 is a number
    try:
        return name, {key: load(value) for key, value in (pair.split("=", 1) for pair in pairs)}
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(
            f"{spec!r} is not a network; give name or name:key=value,key=value, as in gsa_resnet26:stem=small"
        ) from error


def run(config: CompareConfig) -> dict[str, Any]:
    """Train what is not yet trained, compare, print the table, and save it in ``config.out``.

    The folder holds ``compare.json``, ``compare.csv``, ``compare.md``, and each run in ``NETWORK/seed-K``. Runs go
    seed by seed, so that an interrupted comparison has pairs to compare; run again, it leaves out the finished runs
    and resumes the unfinished one. Networks and seeds may be added to a comparison; its protocol may not change.

    Returns:
        What ``compare.json`` holds. ``networks`` is a list in the order of ``models``; each has ``label``, ``model``,
        ``model_args``, ``runs`` (folders relative to ``out``), ``top1`` and ``difference`` (to the first, None for
        the first itself; see `foveate.stats.paired`), ``parameters``, ``flops`` (per image, 2 per
        multiply-add), ``images_per_second`` (``median``, ``q1``, ``q3``), ``peak_memory`` (bytes that a training
        step adds), both None if they could not be measured, and ``seconds`` (of training, all runs).

    Raises:
        ValueError: A setting is wrong or not the one that the folder was started with.
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    config.check()
    check_alone("foveate compare")
    device = check_device(config.device, config.precision)
    out, data = Path(config.out), config.open()
    begun = read_settings(out / CONFIG, config)
    if begun is not None and config.threads is None:
        config = dataclasses.replace(config, threads=begun["threads"])
    runs = [config.run_of(spec, seed) for seed in range(config.seeds) for spec in config.models]
    for one in runs:
        one.check()
    for folder, wanted in [(out, config), *((one.folder, one) for one in runs)]:
        check_unchanged(folder / CONFIG, wanted, but=("models", "seeds"))
    loaders(runs[0], data)
    networks = [build(config.run_of(spec, 0), data)[0] for spec in config.models]
    small = device.type == "cpu" and all(sum(p.numel() for p in network.parameters()) < SMALL for network in networks)
    if begun is None and config.threads is None and small:
        config = dataclasses.replace(config, threads=1)
        runs = [dataclasses.replace(one, threads=1) for one in runs]
    jobs = _jobs(config, small)
    writable_folder(out)
    write_text(out / CONFIG, to_yaml(config))

    try:
        results = train_all(runs, data, jobs)
        costs = _costs(config, data, device)
    except KeyboardInterrupt as error:
        signum = getattr(error, "signum", signal.SIGINT)
        raise Interrupted(signum, "run the same command again to go on from here") from error
    by_network = [results[index :: len(config.models)] for index in range(len(config.models))]
    table = {
        "data": config.data,
        "split": results[0]["split"],
        "images": results[0]["images"],
        "image_size": list(data.image_size),
        "batch_size": config.batch_size,
        "layout": "NHWC" if config.channels_last else "NCHW",
        "seeds": list(range(config.seeds)),
        "networks": [
            {
                "label": spec,
                "model": trained[0]["model"],
                "model_args": trained[0]["config"]["model_args"],
                "runs": [str(config.run_of(spec, seed).folder.relative_to(out)) for seed in range(config.seeds)],
                "top1": dataclasses.asdict(accuracy(_correct(trained))),
                "difference": None if trained is by_network[0] else _difference(trained, by_network[0]),
                "seconds": sum(result["seconds"] for result in trained),
                **costs[spec],
            }
            for spec, trained in zip(config.models, by_network, strict=True)
        ],
        "protocol": {field.name: getattr(config, field.name) for field in dataclasses.fields(Protocol)},
        "environment": environment(device),
    }
    write_json(out / "compare.json", table)
    write_text(out / "compare.csv", to_csv(table))
    write_text(out / "compare.md", to_markdown(table))
    print(f"\n{to_markdown(table)}\nsaved in {out}: compare.json, compare.csv, compare.md")
    return read_json(out / "compare.json")


def _jobs(config: CompareConfig, small: bool) -> int:
    elsewhere = [spec for spec in config.models if not _is_known_to_all(parse_spec(spec)[0])]
    if config.jobs is None:
        return max(1, cores() // (config.threads or cores())) if small and not elsewhere else 1
    if config.jobs > 1 and elsewhere:
        raise ValueError(
            f"{elsewhere[0]} is registered with timm by this process alone, so others cannot train it; leave out jobs"
        )
    return config.jobs


def _is_known_to_all(model: str) -> bool:
    """Whether every process that imports foveate has the network."""
    module = timm.model_entrypoint(model).__module__ if timm.is_model(model) else "timm"
    return module.partition(".")[0] in ("timm", "foveate")


def _correct(results: list[dict[str, Any]]) -> list[list[int]]:
    return [result["correct"] for result in results]


def _difference(results: list[dict[str, Any]], first: list[dict[str, Any]]) -> dict[str, Any]:
    return dataclasses.asdict(paired_difference(_correct(results), _correct(first)))


def _costs(config: CompareConfig, data: ImageData, device: torch.device) -> dict[str, dict[str, Any]]:
    """Measure all networks side by side on random images, in float32 and the memory format of training."""
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    batch = torch.randn(config.batch_size, 3, *data.image_size, device=device).contiguous(memory_format=layout)
    networks = {
        spec: build(config.run_of(spec, 0), data)[0].to(device).to(memory_format=layout) for spec in config.models
    }
    rates = _measured(lambda: images_per_second(networks, batch))
    costs = {}
    for spec, network in networks.items():
        cost = network_cost(network, (3, *data.image_size))
        costs[spec] = {
            "parameters": cost.parameters,
            "flops": cost.flops,
            "images_per_second": None if rates is None else rates[spec]._asdict(),
            "peak_memory": _measured(partial(peak_step_memory, network, batch)),
        }
    return costs


def _measured(measure: Callable[[], Figure]) -> Figure | None:
    """Return what ``measure`` gives; None if it fails, for want of memory say: what was trained is to be kept."""
    try:
        return measure()
    except RuntimeError as error:
        print(f"foveate: could not be measured and is left out: {error}", file=sys.stderr)
        return None
