"""Trained networks to be looked into side by side, and the images that they are shown."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from torch.utils.data import Subset

from foveate import _checks
from foveate.comparison.model_spec import OF_ONE_NETWORK
from foveate.data import ImageData, LabelledImages, TransformConfig, make_loader
from foveate.data.splitting import equally_spaced
from foveate.io import NetworkMeta
from foveate.io.files import read_json
from foveate.models.building import GIVEN
from foveate.models.inspection import attention_modules
from foveate.trained import TrainedClassifier, load
from foveate.training import check_device
from foveate.training.settings import DataConfig

__all__ = ["SeededNetwork", "ShownConfig", "gate_name", "networks_of", "open_shown", "runs_of", "spec_of"]

COMPARISON, RESULT = "compare.json", "result.json"
DATA = ("data", "data_options", "data_seed", "root", "intensity_range")
PREPARATION = ("img_size", "mean", "std", "crop_pct", "interpolation")


@dataclass(kw_only=True)
class ShownConfig(DataConfig):
    """Which trained networks are looked into, and which images they are shown.

    Attributes:
        checkpoints: Folders of runs, or of comparisons, which stand for all of their runs; or model.safetensors, .ckpt.
        data: As in foveate train. Not given: what the networks were trained on, and with those options, unless other
            ones are given.
        data_seed: Not given: that of the training, where the data are those of it, else 0.
        split: From which images are taken.
        images: How many, at equal distances through the split.
        batch_size: Images per step.
        seed: Of what is drawn at random.
    """

    checkpoints: list[str] = field(default_factory=list)
    data: str = ""
    data_seed: int | None = None  # type: ignore[assignment]
    split: Literal["test", "val", "train"] = "test"
    images: int = 500
    batch_size: int = 100
    seed: int = 0

    def check(self) -> None:
        """Raise a `ValueError` that names the first setting that is out of its range, data apart."""
        if not self.checkpoints:
            raise ValueError("no networks given; name the folders of runs or of a comparison, as in runs/digits")
        for name in ("images", "batch_size"):
            _checks.integer(name, getattr(self, name), minimum=2)
        for name in ("seed", "workers"):
            _checks.integer(name, getattr(self, name), minimum=0)


@dataclass(frozen=True, eq=False)
class SeededNetwork(TrainedClassifier):
    """One trained network among others, some of which differ in nothing but their seed."""

    label: str
    """As `foveate compare` takes it, the same for all seeds: ``cram_resnet_tiny:at=1``."""
    seed: int
    data: Mapping[str, Any]
    """Settings by which the images were opened that it was trained on; none where there is no ``result.json``."""

    @property
    def family(self) -> str:
        """The label without ``at``: the same for networks that differ in nothing but where their attention is."""
        keywords = {name: value for name, value in _keywords(self.meta).items() if name != "at"}
        own = [part for part in self.label.partition(":")[2].split(",") if part.partition("=")[0] in OF_ONE_NETWORK]
        return _label(self.meta.model, keywords, own)


def networks_of(paths: Sequence[str]) -> list[SeededNetwork]:
    """Load the networks of runs and comparisons, on the CPU.

    Raises:
        ValueError: There is no such run or comparison, one is given twice, or a network has no attention.
    """
    found: list[SeededNetwork] = []
    for label, path in [run for given in paths for run in runs_of(Path(given))]:
        trained = load(str(path))
        if not isinstance(trained, TrainedClassifier):
            raise ValueError(
                f"{path} was trained for {trained.meta.task}, and classifiers are looked into; leave it out"
            )
        if not attention_modules(trained.network):
            raise ValueError(f"{path} holds {trained.meta.model}, a network without attention; leave it out")
        result = _result(path)
        settings = result.get("config", {})
        label = label or _label(trained.meta.model, _keywords(trained.meta), _equivariance(settings))
        seed = result.get("seed", sum(other.label == label for other in found))
        data = {name: settings[name] for name in DATA if settings.get(name) is not None}
        found.append(SeededNetwork(**vars(trained), label=label, seed=seed, data=data))
    twice = [key for key, times in Counter((one.label, one.seed) for one in found).items() if times > 1]
    if twice:
        raise ValueError(f"{twice[0][0]} with seed {twice[0][1]} is given twice; name each run once")
    files = Counter(Path(one.source).resolve() for one in found)  # of a checkpoint alone the seed is not known
    if files and files.most_common(1)[0][1] > 1:
        raise ValueError(f"{files.most_common(1)[0][0]} is given twice; name each checkpoint once")
    return found


def open_shown(config: ShownConfig, networks: Sequence[SeededNetwork]) -> tuple[ImageData, TransformConfig, Images]:
    """Open the images that ``networks`` are shown, prepared as those that they were trained on.

    Raises:
        ValueError: The networks were trained with other classes or another preparation than each other or the data,
            or it is not known on what.
    """
    first = networks[0]
    for other in networks[1:]:
        for name in ("classes", *PREPARATION):
            ours, theirs = getattr(first.meta, name), getattr(other.meta, name)
            if ours != theirs:
                raise ValueError(
                    f"the networks are to be shown the same images, and {first.source} and {other.source} "
                    f"were trained with different {name}: {ours} and {theirs}"
                )
    same = config.data in ("", first.data.get("data"))
    seed = first.data.get("data_seed") if same and config.data_seed is None else config.data_seed
    config = dataclasses.replace(config if config.data else _as_trained(config, networks), data_seed=seed or 0)
    data = config.open(first.img_size, intensity_range=first.meta.intensity_range)
    for network in networks:
        network.check_fits(data)
    transform = first.transform_of(data)
    images = data.split(config.split)
    chosen = equally_spaced(len(images), config.images)
    return data, transform, Images(images, chosen, transform, config)


def _as_trained(config: ShownConfig, networks: Sequence[SeededNetwork]) -> ShownConfig:
    """Return ``config`` with the data that the networks were trained on; the folder may have moved."""
    first = networks[0]
    for network in networks:
        if not network.data:
            raise ValueError(f"{network.source} does not say what it was trained on; name the images with --data")
        if network.data != first.data:
            raise ValueError(
                f"{first.source} and {network.source} were trained on different data, {first.data} and "
                f"{network.data}; choose with --data"
            )
    options = {**first.data.get("data_options", {}), **config.data_options}
    own = {name: getattr(config, name) or first.data.get(name) for name in ("root", "intensity_range")}
    return dataclasses.replace(config, **{**first.data, "data_options": options, **own})


class Images:
    """The images, in batches, as often as one asks for them.

    Attributes:
        shown: How many were given the last time; fewer than were chosen where some could not be read.
    """

    def __init__(
        self, images: LabelledImages, chosen: list[int], transform: TransformConfig, config: ShownConfig
    ) -> None:
        self._shared: dict[str, Any] = {
            "transform": transform,
            "batch_size": config.batch_size,
            "workers": config.workers,
            "max_bad_images": config.max_bad_images,
        }
        self._images: Any = Subset(images, chosen)  # type: ignore[arg-type]
        self._device = check_device(config.device, "32-true")
        self.shown = 0

    def __iter__(self) -> Iterator[Tensor]:
        self.shown = 0
        for images, _ in make_loader(self._images, training=False, **self._shared):
            self.shown += len(images)
            yield images.to(self._device)


def gate_name(name: str) -> str:
    """Return the name of the stage behind which an attention module stands, where it is an inserted one."""
    return name.removesuffix(".attention")


def runs_of(path: Path) -> list[tuple[str | None, Path]]:
    """Return the label, where it is known, and the folder of each run that ``path`` stands for."""
    if not (path / COMPARISON).is_file():
        return [(None, path)]
    try:
        return [(net["label"], path / run) for net in read_json(path / COMPARISON)["networks"] for run in net["runs"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path / COMPARISON} is not what `foveate compare` writes: {error!r}") from error


def spec_of(settings: Mapping[str, Any]) -> str:
    """Return what the network of a run with ``settings`` is called, as `foveate compare` takes it."""
    return _label(settings["model"], settings.get("model_args") or {}, _equivariance(settings))


def _result(path: Path) -> Mapping[str, Any]:
    file = (path if path.is_dir() else path.parent) / RESULT
    result = read_json(file) if file.is_file() else {}
    return result if isinstance(result, Mapping) else {}


def _keywords(meta: NetworkMeta) -> dict[str, Any]:
    return {name: value for name, value in meta.kwargs.items() if name not in (*GIVEN, "img_size")}


def _equivariance(config: Mapping[str, Any]) -> list[str]:
    return [f"equivariance={config['equivariance']:g}"] if config.get("equivariance") else []


def _label(model: str, keywords: Mapping[str, Any], own: Sequence[str]) -> str:
    values = [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in keywords.items()]
    parts = [*values, *own]
    return f"{model}:{','.join(parts)}" if parts else model
