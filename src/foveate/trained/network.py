"""A trained network with all that it takes to use it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader

from foveate import _checks
from foveate._images import to_rgb
from foveate.data import (
    BadImage,
    ImageData,
    TransformConfig,
    UnreadableImageError,
    make_loader,
    make_transform,
    open_data,
    placement,
)
from foveate.data.given import read_upright
from foveate.data.image_data import takes_intensity_range
from foveate.io import NetworkMeta, save_network
from foveate.io.checkpoint import WEIGHTS
from foveate.io.class_names import class_name
from foveate.io.files import writable_folder
from foveate.models.building import check_classifier
from foveate.models.inspection import evaluating
from foveate.trained.evaluation import EvaluationResult, evaluate_network

if TYPE_CHECKING:
    from foveate.explain.finding import Finding

__all__ = ["Picture", "Prediction", "TrainedNetwork"]

Picture = str | Path | Image.Image
"""An image: a file, or what Pillow has opened."""
MAX_RESIZED = 1 << 27
"""Most pixels that an image may have when its shorter side has been resized to that of a network's input."""
PREPARATION = ("mean", "std", "crop_pct", "interpolation")


class Prediction(NamedTuple):
    """A class, and how probable the network takes it to be."""

    label: int
    """Index of the class."""
    name: str
    """In words; of a class of ImageNet those of its synset, whose number `TrainedNetwork.classes` has."""
    probability: float


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network, how images are prepared for it, and what its outputs mean; `foveate.load` makes one.

        trained = foveate.load("cram_resnet_tiny.digits")
        trained.predict("digit.png", k=3)  # [Prediction(label=7, name="7", probability=0.98), …]
        trained.explain("digit.png").save("where.png")
        print(trained.evaluate("digits"))

    An image is a file, by its path, or one of Pillow's, of any size and mode. An orientation tag is applied: the
    network sees the image as people do. Images of a data set (`evaluate`) are read as in training, tags left alone.
    """

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
    def transform(self) -> TransformConfig:
        """Evaluation transform of its training; see `foveate.data.make_transform`."""
        return self._prepared(TransformConfig(img_size=self.img_size))

    def transform_of(self, data: ImageData) -> TransformConfig:
        """Return how ``data`` is prepared for this network: at the size of ``data``, else as in training."""
        return self._prepared(data.transform)

    def _prepared(self, transform: TransformConfig) -> TransformConfig:
        return transform.replace(**{name: getattr(self.meta, name) for name in PREPARATION})

    def prepare(self, images: Picture | Iterable[Picture]) -> Tensor:
        """Return images as the network takes them, ``(B, 3, H, W)`` on its device.

        Raises:
            ValueError: There is none, one cannot be read, or is too long and narrow to be resized.
        """
        several = [images] if isinstance(images, Picture) else list(images)
        if not several:
            raise ValueError("images: there are none; give a path, an image, or a list of them")
        return self.tensor([self.opened(image)[1] for image in several])

    def opened(self, image: Picture) -> tuple[str, Image.Image]:
        """Return the name of an image, and it as RGB and upright; raises as `prepare`."""
        if isinstance(image, Image.Image):
            pixels = to_rgb(ImageOps.exif_transpose(image), intensity_range=self.meta.intensity_range)
            name = "image"
        elif isinstance(image, str | os.PathLike):
            path = Path(image).expanduser()
            name, pixels = path.name, read_upright(path, intensity_range=self.meta.intensity_range)
        else:
            raise ValueError(f"an image must be a path or one of Pillow's; got {type(image)}: see PIL.Image.fromarray")
        self.check_shape((pixels.height, pixels.width), name)
        return name, pixels

    def tensor(self, images: Sequence[Image.Image]) -> Tensor:
        """Return RGB images as the network takes them, on its device."""
        transform = make_transform(self.transform, training=False)
        return torch.stack([transform(image) for image in images]).to(self.device)

    def check_shape(self, size: tuple[int, int], name: str) -> None:
        """Refuse an image so long that its shorter side cannot be resized; one of 1×50,000 pixels would take gigabytes.

        Raises:
            UnreadableImageError: ``name``, of height and width ``size``, is one.
        """
        (height, width), place = size, placement(self.transform, size)
        if width * place.scale_x * height * place.scale_y > MAX_RESIZED:
            reason = f"{width}×{height} pixels are too long and narrow for {self.name}; crop it"
            raise UnreadableImageError(BadImage(name, reason))

    @overload
    def predict(  # type: ignore[overload-overlap]  # a path is a sequence of letters, too
        self, images: Picture, *, k: int = 5, batch_size: int = 32
    ) -> list[Prediction]: ...
    @overload
    def predict(self, images: Iterable[Picture], *, k: int = 5, batch_size: int = 32) -> list[list[Prediction]]: ...

    def predict(
        self, images: Picture | Iterable[Picture], *, k: int = 5, batch_size: int = 32
    ) -> list[Prediction] | list[list[Prediction]]:
        """Return the ``k`` most probable classes of an image (all if there are fewer), the most probable first.

        Args:
            images: One, or several; of several there is a list for each.
            k: How many classes.
            batch_size: How many images are computed at a time.

        Raises:
            ValueError: An image cannot be read, or a number is out of its range.
        """
        k = min(_checks.integer("k", k), len(self.classes))
        _checks.integer("batch_size", batch_size)
        several = [images] if isinstance(images, Picture) else list(images)
        found = []
        for start in range(0, len(several), batch_size):
            batch = self.prepare(several[start : start + batch_size])
            with evaluating(self.network), torch.inference_mode():
                logits = self.network(batch)
            wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
            values, labels = (part.tolist() for part in wide.softmax(1).topk(k))
            found += [
                [Prediction(label, class_name(self.classes[label]), value) for label, value in zip(*image, strict=True)]
                for image in zip(labels, values, strict=True)
            ]
        return found[0] if isinstance(images, Picture) else found

    def explain(
        self,
        image: Picture,
        *,
        query: tuple[int, int] | None = None,
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
            names: Modules to show, or ``["all"]``. Not given: the last one at each resolution.
            method: ``attention``, ``gradcam``, or ``auto``: attention where there is any, else Grad-CAM.
            label: The image's true class, where it is known.

        Returns:
            With ``records``, what each module attended to, ``logits``, ``explanation``, and ``save("where.png")``.

        Raises:
            ValueError: The image cannot be read, the pixel is not seen, or there is no such module or method.
            MissingExtraError: The extra ``explain`` is not installed.
        """
        # Only here: matplotlib, which need not be installed to predict.
        from foveate.trained.explaining import explain_image

        return explain_image(self, image, query=query, names=names, method=method, label=label)

    def evaluate(
        self,
        data: str | Path | ImageData | DataLoader[Any],
        *,
        split: str = "test",
        batch_size: int = 64,
        workers: int = 0,
        precision: str = "32-true",
    ) -> EvaluationResult:
        """Return what the network is worth on labelled images; printed, it is what ``foveate test`` prints.

        Args:
            data: A folder of images or a set by its name, see `foveate.data.open_data`, or what that returns; or a
                `DataLoader` of images ``(B, 3, H, W)`` as the network takes them and class indices ``(B,)``, to which
                ``split``, ``batch_size`` and ``workers`` mean nothing.
            split: Which part of the data.
            batch_size: Images per step.
            workers: Processes that load images; 0 loads them in this one.
            precision: Arithmetic, as in training.

        Raises:
            ValueError: There is no such data or part of it, it has other classes, or an image cannot be read.
            MissingExtraError: The extra ``train`` is not installed.
        """
        if isinstance(data, DataLoader):
            batches, name, split = data, type(data).__name__, ""
        else:
            if not isinstance(data, ImageData):
                own = self.meta.intensity_range if takes_intensity_range(data) else None
                data = open_data(data, img_size=self.img_size, intensity_range=own)
            self.check_fits(data)
            name = data.name
            batches = make_loader(
                data.split(split),
                transform=self.transform_of(data),
                batch_size=batch_size,
                training=False,
                workers=workers,
                max_bad_images=data.max_bad_images,
            )
        return evaluate_network(
            self.network,
            batches,
            classes=self.classes,
            device=self.device,
            precision=precision,
            model=self.meta.model,
            data=name,
            split=split,
        )

    def check_fits(self, data: ImageData) -> None:
        """Raise a `ValueError` unless the network knows the classes of ``data`` and takes images of its size."""
        if list(data.classes) != list(self.classes):
            raise ValueError(
                f"{self.source} was trained for {_listing(self.classes)}; {data.name} has {_listing(data.classes)}"
            )
        check_classifier(self.meta.model, self.network, num_classes=data.num_classes, img_size=data.image_size)

    def save(self, folder: str | Path) -> None:
        """Write the network to a new folder, whole or not at all, from which `foveate.load` loads the same one again.

        Raises:
            ValueError: There is something in the folder, or it cannot be written to.
            OSError: The disk is full.
        """
        folder = Path(folder).expanduser()
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise ValueError(f"{folder} is there already, with something in it; give a new folder")
        with TemporaryDirectory(dir=writable_folder(folder.parent), prefix=".") as around:
            built = Path(around) / folder.name
            built.mkdir()
            save_network(built / WEIGHTS, self.network, self.meta)
            built.replace(folder)


def _listing(classes: Sequence[str]) -> str:
    names = list(classes)
    return f"{len(names)} classes ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
