"""What a benchmark is made of: subjects that do the same job, cases of one shape each, and suites of cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Case", "Reference", "Subject", "Suite", "prepared"]


@dataclass(frozen=True)
class Reference:
    """A slower, independent way to what a module of ours computes, for some of its outputs."""

    words: str
    """What it is, in a few words."""
    compute: Callable[[nn.Module, Tensor], Tensor]
    """Called with a float64 copy of the module, in evaluation mode, and the whole input in float64."""
    pick: Callable[[Tensor], Tensor]
    """Takes from the module's whole output what ``compute`` returns."""


@dataclass(frozen=True)
class Subject:
    """A module or network whose time and memory are measured."""

    name: str
    build: Callable[[], nn.Module]
    """Makes it, on the CPU in float32; raises `ModuleNotFoundError` where the package that has it is missing."""
    reference: Reference | None = None
    """What its results are compared with before it is timed; all of ours have one."""


@dataclass(frozen=True)
class Case:
    """Subjects that are measured side by side on one shape of input."""

    label: str
    input_size: tuple[int, int, int]
    """``(channels, height, width)`` of one image."""
    subjects: tuple[Subject, ...]
    """The first is the base of the ratios, and is measured twice: its ratio to itself is the noise floor."""
    group: str = ""
    """Cases of one group differ in size alone: what a subject took in the last one tells what the next will take."""
    network: bool = False
    """Whole networks: a step ends with the optimiser's, and the input has no gradient."""

    @property
    def positions(self) -> int:
        """Pixels of the input."""
        return self.input_size[1] * self.input_size[2]


@dataclass(frozen=True)
class Suite:
    """Cases that answer one question."""

    name: str
    title: str
    notes: tuple[str, ...]
    """What a reader of the figures has to know of the subjects."""
    cases: tuple[Case, ...]
    batch_size: int = 8
    by_side: bool = False
    """Drawn as curves against the side of the input, not as ratios."""


def prepared(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build a module with weights drawn from ``seed``, none of its parameters all zeros.

    Modules that start as the identity, and residual branches that start switched off, would hide whatever they
    compute; small random numbers let it through.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        module = build()
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return module
