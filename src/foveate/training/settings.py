"""All settings of a training: which network, which images, how they are augmented, how it is optimized."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np

from foveate import _checks
from foveate._devices import check_device
from foveate._option import Option
from foveate._paths import expanded
from foveate.data import ImageData, make_mixup
from foveate.data.dense import DenseData
from foveate.data.image_data import takes_intensity_range
from foveate.data.transforms import TransformConfig
from foveate.tasks import find_task
from foveate.training.distributed import Strategy
from foveate.training.loggers import LoggerName, check_loggers
from foveate.training.recipe import Recipe

__all__ = ["DataConfig", "TrainConfig", "TrainSettings", "check_keywords"]


PLACES = ("root", "out", "checkpoint", "json", "boxes")
"""Settings that are files or folders."""


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return f"./{value}" if value == Path("digits") else str(value)  # a folder of that name
    if isinstance(value, np.generic):
        return value.item()
    if type(value) is dict:
        return {name: _plain(one) for name, one in value.items()}
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


@dataclass(kw_only=True)
class DataConfig:
    """The images of a run, and how they are read.

    Attributes:
        data: digits (they come with the library), a folder of images or of tar shards, or a set that timm
            (torch/cifar100) or torchvision (torchvision/OxfordIIITPet) knows.
        data_options: For digits, any of size, clutter, unit, length, val_length, test_length; {size: 32, clutter: 8}.
            For folders, with task=segmentation: void, classes; with task=detection: classes (VOC) or masks (COCO).
        data_seed: Decides how a set without validation images is divided, and which digits are drawn.
        root: Where the files of a named set are or are put; the folder that a relative image folder starts from.
        download: Fetch the files of a named set if they are missing.
        img_size: Height and width of what the network sees; one number, or [height, width]. Not given: as suits data.
        intensity_range: Of 16-bit grayscale, as in thermal or microscopic images: the stored values that become black
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

    def __post_init__(self) -> None:
        """Make paths text, with the home folder for ``~``, and NumPy's numbers Python's, as in a file of settings."""
        for field_ in dataclasses.fields(self):
            setattr(self, field_.name, _plain(getattr(self, field_.name)))
        for name in PLACES:
            if str(getattr(self, name, None)).startswith("~"):
                setattr(self, name, str(expanded(getattr(self, name))))

    def open(
        self,
        img_size: int | tuple[int, int] | None = None,
        *,
        task: str = "classification",
        boxes: str | None = None,
        intensity_range: Sequence[float] | None = None,
    ) -> Any:
        """Open the images with what ``task`` learns of them; with the boxes in ``boxes``, for classification.

        ``img_size`` and ``intensity_range``, such as a trained network's, are for what the configuration leaves open.

        Raises:
            ValueError: There are none such, or an option is out of its range.
        """
        _checks.integer("data_seed", self.data_seed, minimum=0)
        return find_task(task).open_data(
            self.data,
            root=self.root,
            img_size=img_size if self.img_size is None else self.img_size,
            download=self.download,
            seed=self.data_seed,
            max_bad_images=self.max_bad_images,
            options=self.data_options,
            **({} if boxes is None else {"boxes": boxes}),
            intensity_range=self.intensity_range or (intensity_range if takes_intensity_range(self.data) else None),
        )


RANDOM = ("crop", "scale", "hflip", "vflip", "color_jitter", "auto_augment", "random_erasing")
"""Settings of the random part of the transform."""
AUGMENTATION = (*RANDOM, "crop_pct", "interpolation")
"""Settings of the transform."""
OF_OPENING = (
    *("data_options", "data_seed", "root", "download", "img_size", "intensity_range", "max_bad_images"),
    *AUGMENTATION,
)
"""Settings that mean nothing to images that were opened already."""


@dataclass(kw_only=True)
class TrainSettings(Recipe, DataConfig):
    """All that decides how a network is trained, apart from which network it is and from the seed.

    Attributes:
        task: What is learned: classification, segmentation or detection.
        decoder: Of segmentation: unet, unetplusplus, fpn, deeplabv3plus, segformer or upernet.
        dice: Of segmentation: weight of the Dice loss, beside cross-entropy.
        detector: Of detection: fasterrcnn, maskrcnn, retinanet or fcos.
        head_args: Keywords of the decoder or the detector, as in {decoder_channels: [64, 32, 16]}.
        mixup: Alpha of mixup, the weighted mean of two images; 0 leaves it out.
        cutmix: Alpha of CutMix, a patch of one image in another; 0 leaves it out.
        crop: How training places and sizes images: resized (random resized crop), padded (random shift) or none.
            This and the following options: not given, as suits the data.
        scale: Range of the part of the area that crop=resized keeps, [low, high]; with masks or boxes, the factor by
            which the image is resized, which may exceed 1.
        hflip: Probability of mirroring left and right.
        vflip: Probability of mirroring top and bottom.
        color_jitter: Largest relative change of brightness, contrast and saturation.
        auto_augment: A policy of timm's, such as rand-m9-mstd0.5-inc1.
        random_erasing: Probability of erasing a random rectangle.
        crop_pct: In evaluation, the part of the shorter side that is kept, in (0, 1]; up to 2 with a black border.
        interpolation: bilinear, bicubic or nearest.
        model_args: Keywords for the network, as in {stem: small}.
        pretrained: Start from the weights that timm has for the network, fetched if need be.
        threads: CPU threads that compute. Not given: as many as PyTorch chooses; in a comparison of small networks on
            the CPU, 1.
        checkpoint_minutes: Besides after each epoch, and when it is told to end, a run is saved whenever so many
            minutes have passed; 0 leaves this out.
        checkpoint_updates: The same, counted in updates of the weights.
        logger: Where the figures of each epoch are logged, besides in result.json: csv, tensorboard, wandb or mlflow;
            repeat it for several.
    """

    task: str = "classification"
    decoder: str = "unet"
    dice: float = 0.0
    detector: str = "fasterrcnn"
    head_args: dict[str, Option] = field(default_factory=dict)
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
    logger: list[LoggerName] = field(default_factory=lambda: ["csv", "tensorboard"])

    def check(self) -> None:
        """Raise a `ValueError` that names the first setting that is out of its range, data apart."""
        super().check()
        find_task(self.task).check_settings(self)
        if isinstance(self.logger, str) or not all(isinstance(one, str) for one in self.logger):
            raise ValueError(
                f"logger: settings hold a list of names, of {', '.join(get_args(LoggerName))}; got {self.logger!r}. "
                "Others are given to foveate.train(logger=[…])"
            )
        check_loggers(self.logger)
        _checks.integer("workers", self.workers, minimum=0)
        if self.threads is not None:
            _checks.integer("threads", self.threads)
        _checks.number("checkpoint_minutes", self.checkpoint_minutes, minimum=0)
        _checks.integer("checkpoint_updates", self.checkpoint_updates, minimum=0)
        make_mixup(2, mixup=self.mixup, cutmix=self.cutmix)

    def open(self, img_size: int | tuple[int, int] | None = None, **given: Any) -> ImageData | DenseData:
        """Open the images for the task, with the augmentation that was asked for."""
        data = super().open(img_size, **{"task": self.task, **given})
        changes = {name: getattr(self, name) for name in AUGMENTATION}
        return dataclasses.replace(data, transform=data.transform.replace(**changes))

    def check_augmentation(self, transform: TransformConfig) -> None:
        """Raise a `ValueError` if ``transform``, to which these settings have led, makes one of them meaningless."""
        if self.scale is not None and transform.crop != "resized":
            raise ValueError(f"scale has no effect with crop={transform.crop}; leave it out, or use crop=resized")
        if self.color_jitter and self.auto_augment and "3a" not in self.auto_augment:
            raise ValueError(
                f"color_jitter has no effect beside auto_augment={self.auto_augment}, which changes colors itself; "
                "leave one of them out, or use auto_augment=3a"
            )


@dataclass(kw_only=True)
class TrainConfig(TrainSettings):
    """Train a network and evaluate it.

    Attributes:
        model: Name of the network, any that timm knows; `foveate models` lists ours.
        out: Folder of the run. Not given: runs/MODEL-seed-SEED.
        seed: Of the initial weights, the order of the images and their augmentation.
        resume: Continue an interrupted run in `out` where its last checkpoint left it.
        checkpoint: File with weights of the same network to start from, timm's too; another number of classes or
            image size is no hindrance.
        strategy: How the processes that torchrun starts share the work: ddp (each holds the whole network), fsdp
            (each holds a part), or auto, which is ddp.
        sync_bn: Let batch normalization use the images of all processes. On GPUs only.
    """

    model: str = ""
    out: str | None = None
    seed: int = 0
    resume: bool = False
    checkpoint: str | None = None
    strategy: Strategy = "auto"
    sync_bn: bool = False

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path(self.out or f"runs/{self.model}-seed-{self.seed}")

    def check(self) -> None:
        """Raise a `ValueError` that names the first setting that is out of its range."""
        if not self.model:
            raise ValueError("no network given; name one, as in `foveate train gsa_resnet26`")
        super().check()
        _checks.integer("seed", self.seed, minimum=0)
        if self.sync_bn and check_device(self.device, self.precision).type != "cuda":
            raise ValueError("sync_bn needs GPUs, as PyTorch's SyncBatchNorm does; leave it out on the CPU")


def check_keywords(config_class: type[Any], settings: Iterable[str]) -> None:
    """Raise a `ValueError` that names the nearest field for the first of ``settings`` that is none."""
    names = [field.name for field in dataclasses.fields(config_class)]
    for name in settings:
        if name not in names:
            known = ", ".join(names)
            raise ValueError(f"unknown setting {name!r}{_checks.suggestion(name, names) or f'; there are {known}'}")
