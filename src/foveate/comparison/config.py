"""The settings of a comparison."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from foveate import _checks
from foveate.comparison.model_spec import ModelSpec
from foveate.training import TrainConfig
from foveate.training.settings import TrainSettings
from foveate.training.train_state import find_checkpoint

__all__ = ["CompareConfig", "folder_name"]

LONGEST = 200
"""Of the name of a folder; file systems take 255 bytes."""


@dataclass(kw_only=True)
class CompareConfig(TrainSettings):
    """Train several networks under one protocol with paired seeds, and compare them to the first.

    Attributes:
        models: Names of the networks, each with keywords of its own if need be, as in gsa_resnet26:stem=small,
            num_heads=4 (without the space), the equivariance settings and the learning rate among them:
            cram_resnet26:equivariance=1, gsa_resnet26:lr=0.002. The first is what the others are compared to.
        seeds: How many times each is trained, with seeds 0, 1, 2...; equal seeds see the same images in the same order.
        out: Folder of the comparison, with a folder per run. A comparison that was interrupted is continued.
        jobs: Runs side by side, each in a process of its own; the results do not depend on it. Not given: as many as
            there are cores for, and 2 GiB of memory each, where the networks are small and compute on the CPU, else 1.
    """

    models: list[str] = field(default_factory=list)
    seeds: int = 3
    out: str = "runs/compare"
    jobs: int | None = None

    def check(self) -> None:
        """Raise a `ValueError` that names the first setting that is out of its range."""
        if not self.models:
            raise ValueError("no networks given; name them, as in `foveate compare resnet26d gsa_resnet26`")
        for model in self.models:
            if not isinstance(model, str):
                raise ValueError(
                    f"models must be names of networks; got a {type(model).__name__}. A network of your own gets a "
                    "name by timm.models.register_model"
                )
        if len(set(self.models)) < len(self.models):
            raise ValueError(f"each network can be compared once; got {', '.join(self.models)}")
        super().check()
        _checks.integer("seeds", self.seeds)
        if self.jobs is not None:
            _checks.integer("jobs", self.jobs)

    def run_of(self, spec: str, seed: int) -> TrainConfig:
        """Return the configuration of one run."""
        model, model_args, own = ModelSpec.parse(spec)
        shared = {field.name: getattr(self, field.name) for field in dataclasses.fields(TrainSettings)}
        shared |= {**own, "model_args": {**self.model_args, **model_args}}
        folder = Path(self.out, folder_name(spec), f"seed-{seed}")
        resume = find_checkpoint(folder) is not None
        return TrainConfig(model=model, seed=seed, out=str(folder), resume=resume, **shared)


def folder_name(spec: str) -> str:
    """Return the name of the folder of a network's runs."""
    name = quote(spec.replace(":", "+", 1), safe="+=, []")
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}-{hashlib.sha256(spec.encode()).hexdigest()[:12]}"
