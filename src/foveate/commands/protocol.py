"""What the commands that train and test share: which images, and how a network is trained on them."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

from foveate import _checks
from foveate.commands._option import Option
from foveate.data import ImageData, make_mixup, open_data
from foveate.training import Recipe

__all__ = ["DataConfig", "Protocol", "check_unchanged", "environment", "read_settings", "to_yaml"]

WHERE = frozenset(
    {
        *("out", "resume", "root", "download", "workers", "device", "max_bad_images"),
        *("checkpoint_minutes", "checkpoint_updates", "strategy", "jobs"),
    }
)
"""Settings that say where and with which means something is computed, or how much is put up with, not what."""
NEWER = frozenset(
    {
        *("checkpoint_minutes", "checkpoint_updates", "non_finite", "max_skipped", "strategy", "sync_bn"),
        *("intensity_range", "threads", "jobs"),
    }
)
"""Settings that saved configurations may lack: what is the default now was the rule then."""


@dataclass(kw_only=True)
class DataConfig:
    """Which images, and how they are read.

    Attributes:
        data: digits (they come with the library), a folder of images or of tar shards, or a set that timm
            (torch/cifar100) or torchvision (torchvision/OxfordIIITPet) knows.
        data_options: For digits, any of size, clutter, length, val_length, test_length; {size: 32, clutter: 8}.
        data_seed: Decides how a set without validation images is divided, and which digits are drawn.
        root: Where the files of a named set are or are put; the folder that a relative image folder starts from.
        download: Fetch the files of a named set if they are missing.
        img_size: Height and width of what the network sees; one number, or [height, width]. Not given: as suits data.
        intensity_range: Of 16-bit greyscale, as in thermal or microscopic images: the stored values that become black
            and white, [low, high]. Not given: the whole range.
        max_bad_images: Images that cannot be read are left out, up to so many; one more is an error.
        workers: Processes that load images; 0 loads them in this one. The result does not depend on it.
        device: auto (a CUDA GPU if there is one, else the CPU), cpu, cuda, or mps (the GPU of a Mac).
    """

    data: str = "digits"
    data_options: dict[str, Option] = field(default_factory=dict)
    data_seed: int = 0
    root: str | None = None
    download: bool = False
    img_size: int | tuple[int, int] | None = None
    intensity_range: tuple[float, float] | None = None
    max_bad_images: int = 0
    workers: int = 0
    device: str = "auto"

    def open(self, img_size: int | tuple[int, int] | None = None) -> ImageData:
        """Open the images, at ``img_size`` if the configuration does not give one.

        Raises:
            ValueError: There are none such, or an option is out of its range.
        """
        _checks.integer("data_seed", self.data_seed, minimum=0)
        return open_data(
            self.data,
            root=self.root,
            img_size=img_size if self.img_size is None else self.img_size,
            download=self.download,
            seed=self.data_seed,
            max_bad_images=self.max_bad_images,
            options=self.data_options,
            intensity_range=self.intensity_range,
        )


@dataclass(kw_only=True)
class Protocol(Recipe, DataConfig):
    """All that decides how a network is trained, apart from which network it is and from the seed.

    Attributes:
        mixup: Alpha of mixup, the weighted mean of two images; 0 leaves it out.
        cutmix: Alpha of CutMix, a patch of one image in another; 0 leaves it out.
        crop: How training places and sizes images: resized (random resized crop), padded (random shift) or none.
            This and the following options: not given, as suits the data.
        scale: Range of the part of the area that crop=resized keeps, [low, high].
        hflip: Probability of mirroring left and right.
        vflip: Probability of mirroring top and bottom.
        color_jitter: Largest relative change of brightness, contrast and saturation.
        auto_augment: A policy of timm's, such as rand-m9-mstd0.5-inc1.
        random_erasing: Probability of erasing a random rectangle.
        crop_pct: In evaluation, the part of the shorter side that is kept, in (0, 1].
        interpolation: bilinear, bicubic or nearest.
        model_args: Keywords for the network, as in {stem: small}.
        pretrained: Start from the weights that timm has for the network, fetched if need be.
        threads: CPU threads that compute. Not given: as many as PyTorch chooses; in a comparison of small networks on
            the CPU, 1.
        checkpoint_minutes: Besides after each epoch, and when it is told to end, a run is saved whenever so many
            minutes have passed; 0 leaves this out.
        checkpoint_updates: The same, counted in updates of the weights.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    crop: str | None = None
    scale: tuple[float, float] | None = None
    hflip: float | None = None
    vflip: float | None = None
    color_jitter: float | None = None
    auto_augment: str | None = None
    random_erasing: float | None = None
    crop_pct: float | None = None
    interpolation: str | None = None
    model_args: dict[str, Option] = field(default_factory=dict)
    pretrained: bool = False
    threads: int | None = None
    checkpoint_minutes: float = 10.0
    checkpoint_updates: int = 0

    def check(self) -> None:
        """Raise a `ValueError` that names the first setting that is out of its range, data apart."""
        super().check()
        _checks.integer("workers", self.workers, minimum=0)
        if self.threads is not None:
            _checks.integer("threads", self.threads)
        _checks.number("checkpoint_minutes", self.checkpoint_minutes, minimum=0)
        _checks.integer("checkpoint_updates", self.checkpoint_updates, minimum=0)
        make_mixup(2, mixup=self.mixup, cutmix=self.cutmix)

    def open(self, img_size: int | tuple[int, int] | None = None) -> ImageData:
        """Open the images, with the augmentation that was asked for."""
        data = super().open(img_size)
        names = ("crop", "scale", "hflip", "vflip", "color_jitter", "auto_augment", "random_erasing", "crop_pct")
        changes = {name: getattr(self, name) for name in (*names, "interpolation")}
        return dataclasses.replace(data, transform=data.transform.replace(**changes))


def read_settings(saved: Path, config: Protocol) -> dict[str, Any] | None:
    """Return the settings in a file that `to_yaml` wrote for a configuration of the kind of ``config``, if it is there.

    Raises:
        ValueError: It is another file, or damaged.
    """
    if not saved.exists():
        return None
    try:
        settings = yaml.safe_load(saved.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        settings = None
    defaults = {field.name: field.default for field in dataclasses.fields(config) if field.name in NEWER}
    if not isinstance(settings, dict) or (defaults | settings).keys() != dataclasses.asdict(config).keys():
        raise ValueError(f"{saved} is damaged, or not of such a run; move it away, or give another `out`")
    return defaults | settings


def check_unchanged(saved: Path, config: Protocol, *, but: Iterable[str] = ()) -> None:
    """Raise a `ValueError` if a file that `to_yaml` wrote has other settings than ``config``; none is no hindrance.

    Args:
        saved: The file.
        config: What is asked for now.
        but: Settings that may differ, besides those that say where and with which means something is computed.
    """
    then, now = read_settings(saved, config), yaml.safe_load(to_yaml(config))
    if then is None:
        return
    names = [name for name in now if name not in WHERE.union(but)]
    changed = [f"{name}: {then[name]!r} there, {now[name]!r} now" for name in names if then[name] != now[name]]
    if changed:
        raise ValueError(
            f"{saved.parent} was started with other settings; use those (--config {saved}), give another `out`, or "
            f"delete it:\n  " + "\n  ".join(changed)
        )


def to_yaml(config: Protocol) -> str:
    """Return ``config`` as the YAML that ``--config`` takes."""
    return yaml.safe_dump(json.loads(json.dumps(dataclasses.asdict(config))), sort_keys=False, allow_unicode=True)


def environment(device: torch.device) -> dict[str, str]:
    """Return what computed a result: versions, and the device."""
    name = f"{platform.machine()} {'GPU' if device.type == 'mps' else 'CPU'}"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else name
    versions = {package: version(package) for package in ("foveate", "torch", "timm", "lightning")}
    return {"python": platform.python_version(), **versions, "device": name}
