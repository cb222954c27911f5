"""A trained network with all that it takes to use it: what networks of all tasks have in common."""

from __future__ import annotations

import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from foveate import _checks
from foveate._paths import expanded
from foveate.data import (
    ImageData,
    Placement,
    TransformConfig,
    make_transform,
    placement,
)
from foveate.data.dense import DenseData
from foveate.data.given import read_upright, upright_rgb
from foveate.data.image_data import takes_intensity_range
from foveate.data.placement import check_resizable
from foveate.io import NetworkMeta
from foveate.models.dense import seen_size
from foveate.models.inspection import evaluating, floating_dtype
from foveate.trained.evaluation import EvaluationResult, evaluate_trained
from foveate.trained.saving import save_trained

if TYPE_CHECKING:
    from foveate.explain.finding import Finding

__all__ = ["Picture", "TrainedNetwork"]

Picture = str | os.PathLike | Image.Image
"""An image: a file, or what Pillow has opened."""
PREPARATION = ("mean", "std", "crop_pct", "interpolation")


@dataclass(frozen=True, eq=False)
class TrainedNetwork(ABC):
    """A network, how images are prepared for it, and what its outputs mean; `foveate.load` makes one.

        trained = foveate.load("cram_resnet_tiny.digits")
        trained.predict("digit.png", k=3)  # [Prediction(label=7, name="7", probability=0.98), …]
        trained.explain("digit.png").save("where.png")
        print(trained.evaluate("digits"))

    It is a `TrainedClassifier`, a `TrainedSegmenter` or a `TrainedDetector`, which differ in what `predict` returns.
    An image is a file, by its path, or one of Pillow's, of any size and mode. An orientation tag is applied: the
    network sees the image as people do. Images of a data set (`evaluate`) are read as in training, tags left alone.
    """

    fit: ClassVar[str | None] = None
    """How images of other proportions come into the input, see `TransformConfig`; None if its ``meta`` says."""
    data_class: ClassVar[type[ImageData] | type[DenseData]] = ImageData
    """What it is evaluated on."""
    result_class: ClassVar[type[EvaluationResult]]
    """What `evaluate` returns."""
    names_images: ClassVar[bool] = False
    """Whether it predicts a class of the whole image."""

    network: nn.Module
    """The network, in evaluation mode."""
    meta: NetworkMeta
    source: str
    """Where its weights are from: a file, or words."""
    name: str
    """What results call it."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, in the order of the network's outputs."""
        return self.meta.classes

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return next(self.network.parameters()).device

    @property
    def img_size(self) -> int | tuple[int, int]:
        """Height and width of the images that it was trained on; one number if they are equal."""
        height, width = self.meta.img_size
        return height if height == width else (height, width)

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of its input."""
        height, width = self.meta.img_size
        return height, width

    @property
    def transform(self) -> TransformConfig:
        """Evaluation transform of its training; see `foveate.data.make_transform`."""
        return TransformConfig(
            img_size=self.img_size,
            fit=self._own_fit or self.meta.fit,
            **{name: getattr(self.meta, name) for name in PREPARATION},
        )

    def transform_of(self, data: ImageData | DenseData) -> TransformConfig:
        """Return how ``data`` is prepared for this network: at the size of ``data``, else as in training."""
        preparation = {name: getattr(self.meta, name) for name in PREPARATION}
        scale = (1.0, 1.0) if self.meta.fit == "squash" else None  # of training; above 1 if padded
        return data.transform.replace(fit=None if self._own_fit else self.meta.fit, scale=scale, **preparation)

    @property
    def _own_fit(self) -> str | None:  # None where it is that of the training
        return None if self.meta.fit == "squash" else self.fit

    def placement(self, size: tuple[int, int]) -> Placement:
        """Return where an image of height and width ``size`` ends up in the network's input."""
        return placement(self.transform, size)

    def seen_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return height and width that the network's maps span where its input has those of ``size``."""
        return seen_size(self.network, size)

    def prepare(self, images: Picture | Iterable[Picture]) -> Tensor:
        """Return images as the network takes them, ``(B, 3, H, W)`` on its device.

        Raises:
            ValueError: There is none, one cannot be read, or is too long and narrow to be resized.
        """
        several = [images] if isinstance(images, Picture) else list(images)
        if not several:
            raise ValueError("images: there are none; give a path, an image, or a list of them")
        return torch.cat([self.tensor([self.opened(image)[1]]) for image in several])  # one original at a time

    def opened(self, image: Picture) -> tuple[str, Image.Image]:
        """Return the name of an image, and it as RGB and upright; raises as `prepare`."""
        if isinstance(image, Image.Image):
            name, pixels = "image", upright_rgb(image, intensity_range=self.meta.intensity_range)
        elif isinstance(image, str | os.PathLike):
            path = expanded(image)
            name, pixels = path.name, read_upright(path, intensity_range=self.meta.intensity_range)
        else:
            raise ValueError(f"an image must be a path or one of Pillow's; got {type(image)}: see PIL.Image.fromarray")
        self.check_shape((pixels.height, pixels.width), name)
        return name, pixels

    def tensor(self, images: Sequence[Image.Image]) -> Tensor:
        """Return RGB images as the network takes them, on its device, in its floating-point format."""
        transform = make_transform(self.transform, training=False)
        return torch.stack([transform(image) for image in images]).to(self.device, floating_dtype(self.network))

    def unlike(self, tensor: Tensor, size: tuple[int, int]) -> list[str]:
        """Return in words in what an image, as the network takes it, plainly differs from all training images.

        Only the part of the input counts that the image, of height and width ``size``, fills.
        """
        left, top, right, bottom = self.placement(size).extent(size)
        return self.meta.unlike(tensor[..., top:bottom, left:right].float())

    def check_shape(self, size: tuple[int, int], name: str) -> None:
        """Refuse an image so long that its shorter side cannot be resized; one of 1×50,000 pixels would take gigabytes.

        Raises:
            UnreadableImageError: ``name``, of height and width ``size``, is one.
        """
        check_resizable(self.transform, size, name)

    @abstractmethod
    def predict(self, images: Picture | Iterable[Picture]) -> Any:
        """Return what the network predicts for an image, or a list of that for several; see the subclasses.

        Raises:
            ValueError: An image cannot be read.
        """

    def outputs(self, images: Iterable[Picture], *, batch_size: int) -> Iterator[tuple[list[Image.Image], Any]]:
        """Yield the RGB images of each batch, and what the network puts out for them."""
        remaining, size = iter(images), _checks.integer("batch_size", batch_size)
        while several := list(itertools.islice(remaining, size)):
            opened = [self.opened(image)[1] for image in several]
            tensor = self.tensor(opened)
            with evaluating(self.network), torch.no_grad():
                output = self.network(tensor)
            yield opened, output

    def explain(
        self,
        image: Picture,
        *,
        query: tuple[int, int] | None = None,
        box: tuple[float, float, float, float] | None = None,
        names: Sequence[str] = (),
        method: str = "auto",
        label: str | None = None,
    ) -> Finding:
        """Return what the network predicts for an image and where it looked, as `foveate.explain` has it.

        Args:
            image: The image.
            query: Row and column of the pixel of the image whose attention is shown, where attention differs from
                pixel to pixel. Not given: all pixels together; of explicit attention, which is the same from
                everywhere, the middle.
            box: ``(x_min, y_min, x_max, y_max)`` in pixels of the image, in place of ``query``: the attention of all
                positions in it together, see `AttentionRecord.queried_box`.
            names: Modules to show, or ``["all"]``. Not given: the last one at each resolution.
            method: ``attention``, ``gradcam``, or ``auto``: attention where there is any, else Grad-CAM. Grad-CAM is
                for classifiers: of other networks without attention, there is the prediction alone.
            label: The image's true class, where it is known.

        Returns:
            With ``records``, what each module attended to, ``logits``, ``explanation``, and ``save("where.png")``.

        Raises:
            ValueError: The image cannot be read, the pixel is not seen, or there is no such module or method.
            MissingExtraError: The extra ``explain`` is not installed.
        """
        # Only here: matplotlib, which need not be installed to predict.
        from foveate.trained.explaining import explain_image

        return explain_image(self, image, query=query, box=box, names=names, method=method, label=label)

    def answer(self, image: Image.Image, output: Any) -> Any:
        """Return what the output for one RGB image means, as a `Finding` holds it; None of a classifier's logits."""
        return None

    def evaluate(
        self,
        data: str | Path | ImageData | DenseData | DataLoader[Any],
        *,
        split: str = "test",
        batch_size: int = 64,
        workers: int = 0,
        precision: str = "32-true",
    ) -> EvaluationResult:
        """Return what the network is worth on labelled images; printed, it is what ``foveate evaluate`` prints.

        Args:
            data: A folder or a set by its name, which is opened for the network's task (`foveate.data.open_data`,
                `foveate.data.dense.open_segmentation`, `foveate.data.dense.open_detection`), as in its training if it
                was trained on these, so that what it validated on stays apart; or what was opened; or a
                `DataLoader` of images ``(B, 3, H, W)`` as the network takes them and their targets, to which ``split``,
                ``batch_size`` and ``workers`` mean nothing. Targets are class indices ``(B,)``, masks ``(B, H, W)`` or
                a dictionary with ``boxes`` and ``labels`` for each image.
            split: Which part of the data.
            batch_size: Images per step.
            workers: Processes that load images; 0 loads them in this one.
            precision: Arithmetic, as in training.

        Raises:
            ValueError: There is no such data or part of it, it has other classes, or an image cannot be read.
            MissingExtraError: The extra ``train`` is not installed.
        """
        return evaluate_trained(self, data, split=split, batch_size=batch_size, workers=workers, precision=precision)

    def check_fits(self, data: ImageData | DenseData) -> None:
        """Raise a `ValueError` unless the network knows the classes of ``data`` and takes images of its size."""
        if not isinstance(data, self.data_class):
            raise ValueError(
                f"{self.source} was trained for {self.meta.task}, and is evaluated on {self.data_class.__name__}; "
                f"got {type(data).__name__} {data.name}"
            )
        from foveate.tasks import find_task

        dims = getattr(data, "target_dims", None)
        if dims is not None and find_task(self.meta.task).target_dims not in (None, dims):
            raise ValueError(f"{self.source} was trained for {self.meta.task}; {data.name} was opened for another task")
        if list(data.classes) != list(self.classes):
            raise ValueError(
                f"{self.source} was trained for {_listing(self.classes)}; {data.name} has {_listing(data.classes)}"
            )
        wanted = self.meta.intensity_range
        opened = getattr(data.train, "intensity_range", wanted) is not None or not takes_intensity_range(data.name)
        if wanted is not None and not opened:
            raise ValueError(
                f"{self.source} was trained with intensity_range={list(wanted)}, and {data.name} was opened without; "
                "give it to what opens the data"
            )
        self.check_network(data.image_size)

    @abstractmethod
    def check_network(self, img_size: tuple[int, int]) -> None:
        """Raise a `ValueError` unless the network turns a color image of ``img_size`` into what `predict` needs."""

    def save(self, folder: str | Path) -> None:
        """Write the network to a new folder, whole or not at all, from which `foveate.load` loads the same one again.

        Raises:
            ValueError: There is something in the folder, or it cannot be written to; or the network was changed, so
                that its name and arguments do not lead to it any more.
            OSError: The disk is full.
        """
        save_trained(self, Path(folder))


def _listing(classes: Sequence[str]) -> str:
    names = list(classes)
    return f"{len(names)} classes ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
