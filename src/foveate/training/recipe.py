"""Optimization settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import timm.optim
import torch
from torch import nn
from torch.optim import Optimizer

from foveate import _checks

__all__ = ["NonFinite", "Precision", "Recipe", "Schedule", "make_optimizer"]

Schedule = Literal["cosine", "step", "poly", "tanh", "none"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
NonFinite = Literal["stop", "skip"]


@dataclass(kw_only=True)
class Recipe:
    """Optimization settings: the part of a run's settings that `TrainingModule` and the trainer read.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images per step, before accumulation; with several processes, of all of them together, so that
            the gradients do not depend on their number.
        opt: Optimizer, any name that `timm.optim.list_optimizers()` gives but those of second order.
        lr: Learning rate after the warm-up.
        momentum: Momentum, where the optimizer has one.
        weight_decay: Weight decay; norms, biases and what the network excludes itself (`no_weight_decay`) have none.
        sched: Course of the learning rate after the warm-up, set anew after every update.
        warmup_epochs: Epochs over which the learning rate rises linearly from a hundredth; may be a fraction.
        warmup_prefix: Begin the course of the learning rate at the end of the warm-up; otherwise at the first update,
            so that the warm-up covers its beginning.
        min_lr: Learning rate at the end of cosine, poly and tanh.
        cycle_epochs: With cosine, epochs of the first cycle, after which the learning rate restarts; may be a fraction.
            0: a single cycle, which ends with the training.
        cycle_mul: Factor by which each cycle is longer than the one before.
        cycle_decay: Factor from the learning rate that a cycle starts from to that of the next one, at most 1.
        cycle_limit: Number of cycles, after which the learning rate stays at min_lr; 0: as many as the training takes.
        decay_epochs: With sched=step, epochs between two decays.
        decay_rate: With sched=step, factor of a decay; with sched=poly, the power: give 1 for a straight line, as the
            default of 0.1, meant for step, holds the rate up until shortly before the end.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1).
        ema_decay: Decay of the moving average of the weights, which is then validated and saved; 0 averages nothing.
            It is warmed up: at update t the decay is 1 - (1 + t)^(-2/3), and at most this.
        clip_grad: Norm to which gradients are clipped; 0 clips nothing.
        accumulate: Batches whose gradients are added up for one update.
        non_finite: What happens when a loss or the norm of the gradient is infinite or NaN: stop, with a message, or
            skip the update, which then changes nothing. Either way the weights stay those before it.
        max_skipped: With non_finite=skip, how many updates of a run are skipped before it stops all the same.
        precision: Arithmetic; the mixed ones keep the weights in 32 bits. 16-mixed needs a GPU.
        compile: Compile the network with torch.compile.
        img_scale: Range of the factor by which the images of each batch are resized in training, [low, high], their
            masks and boxes with them: for networks that will see images of other sizes.
        freeze: Modules that are not trained, by their names in the network, with all that is in them: their weights and
            their batch statistics stay. As in blocks.0; repeat it for several.
        channels_last: Store images and weights with the channels last, often faster on GPUs with mixed precision.
        equivariance: Weight of the equivariance term, by which what the gates of a network look at has to follow
            shifts, rotations and changes of scale of the image; 0 leaves it out. 1 is usual. It takes a second pass.
        equivariance_shift: Largest shift along each axis, in sides of the image.
        equivariance_rotation: Largest rotation either way, in degrees.
        equivariance_scale: Largest factor by which the image grows; the smallest is its reciprocal.
    """

    epochs: int = 30
    batch_size: int = 64
    opt: str = "adamw"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.05
    sched: Schedule = "cosine"
    warmup_epochs: float = 1.0
    warmup_prefix: bool = False
    min_lr: float = 1e-6
    cycle_epochs: float = 0.0
    cycle_mul: float = 1.0
    cycle_decay: float = 1.0
    cycle_limit: int = 0
    decay_epochs: float = 10.0
    decay_rate: float = 0.1
    label_smoothing: float = 0.1
    ema_decay: float = 0.0
    clip_grad: float = 0.0
    accumulate: int = 1
    non_finite: NonFinite = "stop"
    max_skipped: int = 10
    precision: Precision = "32-true"
    compile: bool = False
    img_scale: tuple[float, float] = (1.0, 1.0)
    freeze: list[str] = field(default_factory=list)
    channels_last: bool = False
    equivariance: float = 0.0
    equivariance_shift: float = 0.2
    equivariance_rotation: float = 30.0
    equivariance_scale: float = 1.25

    def check(self) -> None:
        """Raise a `ValueError` that names the first setting that is out of its range."""
        for name in ("epochs", "batch_size", "accumulate"):
            _checks.integer(name, getattr(self, name))
        _checks.number("lr", self.lr, above=0)
        for name in ("momentum", "weight_decay", "warmup_epochs", "min_lr", "ema_decay", "clip_grad"):
            _checks.number(name, getattr(self, name), minimum=0)
        for name in ("decay_epochs", "decay_rate"):
            _checks.number(name, getattr(self, name), above=0)
        for name in ("label_smoothing", "ema_decay", "momentum"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} must be below 1; got {getattr(self, name):g}")
        _checks.number("label_smoothing", self.label_smoothing, minimum=0)
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs={self.warmup_epochs:g} is more than epochs={self.epochs}; lower it")
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr={self.min_lr:g} is more than lr={self.lr:g}; lower it")
        optimizers = [str(name) for name in timm.optim.list_optimizers()]
        if self.opt not in optimizers:
            close = _checks.suggestion(self.opt, optimizers)
            raise ValueError(f"opt must be an optimizer of timm's, such as adamw, sgd or lamb; got {self.opt!r}{close}")
        known = timm.optim.get_optimizer_info(self.opt)
        if known.second_order:
            raise ValueError(f"opt={self.opt} needs second derivatives, which are not computed here; give another")
        if self.momentum == 0 and known.has_momentum and (known.defaults or {}).get("nesterov"):
            raise ValueError(f"momentum must be above 0 with opt={self.opt}, which is Nesterov's; or give opt=momentum")
        make_optimizer([nn.Parameter(torch.zeros(1))], self)  # some need packages that are not there
        if isinstance(self.freeze, str):
            raise ValueError(f"freeze must be a list of names of modules; got {self.freeze!r}; give [{self.freeze!r}]")
        for module in self.freeze:
            if not isinstance(module, str) or not module:
                raise ValueError(f"freeze must be names of modules; got {module!r}")
        _checks.one_of("sched", self.sched, get_args(Schedule))
        _checks.one_of("precision", self.precision, get_args(Precision))
        _checks.one_of("non_finite", self.non_finite, get_args(NonFinite))
        _checks.integer("max_skipped", self.max_skipped, minimum=0)
        if not isinstance(self.img_scale, list | tuple) or len(self.img_scale) != 2:
            raise ValueError(f"img_scale must be two factors, [low, high]; got {self.img_scale!r}")
        low, high = self.img_scale
        _checks.number("img_scale, high", high, minimum=_checks.number("img_scale, low", low, above=0), maximum=8)
        self._check_cycles()
        self._check_equivariance()

    def _check_cycles(self) -> None:
        _checks.number("cycle_epochs", self.cycle_epochs, minimum=0)
        _checks.number("cycle_mul", self.cycle_mul, minimum=1)
        _checks.number("cycle_decay", self.cycle_decay, above=0, maximum=1)
        _checks.integer("cycle_limit", self.cycle_limit, minimum=0)
        if self.warmup_prefix and self.warmup_epochs == self.epochs:
            raise ValueError(
                f"warmup_prefix leaves nothing after warmup_epochs={self.warmup_epochs:g} of epochs={self.epochs}; "
                "lower warmup_epochs, or leave warmup_prefix out"
            )
        if self.cycle_epochs and self.sched != "cosine":
            raise ValueError(
                f"cycle_epochs={self.cycle_epochs:g} restarts sched=cosine alone; got sched={self.sched}. Choose that, "
                "or leave cycle_epochs at 0"
            )
        for name, unused in (("cycle_mul", 1), ("cycle_decay", 1), ("cycle_limit", 0)):
            if getattr(self, name) != unused and not self.cycle_epochs:
                raise ValueError(
                    f"{name}={getattr(self, name):g} has no effect without restarts; give cycle_epochs above 0, the "
                    "epochs of the first cycle"
                )

    def _check_equivariance(self) -> None:
        _checks.number("equivariance", self.equivariance, minimum=0)
        _checks.number("equivariance_shift", self.equivariance_shift, minimum=0, maximum=0.5)
        _checks.number("equivariance_rotation", self.equivariance_rotation, minimum=0, maximum=180)
        _checks.number("equivariance_scale", self.equivariance_scale, minimum=1, maximum=4)
        if not self.equivariance:
            return
        if self.equivariance_shift == self.equivariance_rotation == 0 and self.equivariance_scale == 1:
            raise ValueError(
                "equivariance has nothing to follow: give equivariance_shift or equivariance_rotation above 0, or "
                "equivariance_scale above 1"
            )
        if self.compile:
            raise ValueError(
                "equivariance watches the gates through hooks, which compiled networks skip; leave out compile"
            )


def make_optimizer(parameters: Any, recipe: Recipe) -> Optimizer:
    """Return timm's optimizer of a recipe for groups of parameters, whose weight decay is theirs.

    Raises:
        ValueError: It needs a package that is not installed, or another device.
    """
    try:
        return timm.optim.create_optimizer_v2(
            parameters, opt=recipe.opt, lr=recipe.lr, weight_decay=0.0, momentum=recipe.momentum
        )
    except (AssertionError, ImportError) as error:
        raise ValueError(f"opt={recipe.opt} cannot be used here: {error}; give another, such as adamw") from error
