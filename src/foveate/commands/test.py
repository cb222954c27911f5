"""``foveate test``: what a trained network is worth on labelled images."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from foveate import _checks
from foveate.commands.protocol import DataConfig
from foveate.data import make_loader
from foveate.io import load_network
from foveate.io.files import writable_file, write_json
from foveate.models.building import check_classifier
from foveate.stats import accuracy
from foveate.training import Classifier, Recipe, check_device, evaluate, predict
from foveate.training.recipe import Precision

__all__ = ["TestConfig", "run"]


@dataclass(kw_only=True)
class TestConfig(DataConfig):
    """Test a trained network.

    Attributes:
        checkpoint: A model.safetensors, a .ckpt, or the folder of a run.
        split: On which images; train shows how far the training images are learnt by heart.
        batch_size: Images per step.
        precision: Arithmetic, as in training.
        json: File to write the figures to.
    """

    __test__ = False  # the name makes pytest look for tests in it

    checkpoint: str = ""
    split: Literal["test", "val", "train"] = "test"
    batch_size: int = 64
    precision: Precision = "32-true"
    json: str | None = None


def run(config: TestConfig) -> dict[str, Any]:
    """Test the network in ``config.checkpoint`` at the image size and normalisation that it was trained with.

    Returns:
        ``top1`` (its bootstrap interval included, see `foveate.stats.paired`), ``top5``, ``loss``,
        ``per_class`` (by the name of the class), ``correct`` (0 or 1 per image), ``split``, ``images``, ``bad_images``.

    Raises:
        ValueError: The checkpoint is none, it was trained for other classes, it does not take images of such a size,
            or the data has no such split.
    """
    if not config.checkpoint:
        raise ValueError("no checkpoint given; name one, as in `foveate test runs/gsa_resnet26-seed-0`")
    _checks.one_of("precision", config.precision, get_args(Precision))
    device = check_device(config.device, config.precision)
    model, meta = load_network(config.checkpoint)
    height, width = meta.img_size
    data = config.open((height, width) if height != width else height)
    if list(data.classes) != list(meta.classes):
        raise ValueError(
            f"{config.checkpoint} was trained for {_listing(meta.classes)}; {config.data} has {_listing(data.classes)}"
        )
    check_classifier(meta.model, model, num_classes=data.num_classes, img_size=data.image_size)
    preparation = {name: getattr(meta, name) for name in ("mean", "std", "crop_pct", "interpolation")}
    loader = make_loader(
        data.split(config.split),
        transform=data.transform.replace(**preparation),
        batch_size=config.batch_size,
        training=False,
        workers=config.workers,
        max_bad_images=data.max_bad_images,
    )
    if config.json is not None:
        writable_file(Path(config.json))
    module = Classifier(model, Recipe(precision=config.precision), num_classes=data.num_classes)
    evaluation = evaluate(*predict(module, loader, device=device))
    result = {
        "checkpoint": config.checkpoint,
        "model": meta.model,
        "data": config.data,
        "split": config.split,
        "images": len(evaluation.correct),
        "top1": dataclasses.asdict(accuracy([evaluation.correct])),
        "top5": evaluation.top5,
        "loss": evaluation.loss,
        "per_class": dict(zip(data.classes, evaluation.per_class, strict=True)),
        "correct": evaluation.correct,
        "bad_images": [str(bad) for bad in loader.bad_images],
    }
    _print(result)
    if config.json is not None:
        write_json(Path(config.json), result)
    return result


def _print(result: dict[str, Any]) -> None:
    top1 = result["top1"]
    print(f"{result['model']} on {result['images']} {result['split']} images of {result['data']}")
    print(f"  top-1  {top1['mean']:7.2%}  ({top1['confidence']:.0%} interval {top1['low']:.2%} to {top1['high']:.2%})")
    if result["top5"] is not None:
        print(f"  top-5  {result['top5']:7.2%}")
    print(f"  loss   {result['loss']:7.4f}")
    print("  per class")
    width = max(map(len, result["per_class"]))
    for name, value in result["per_class"].items():
        print(f"    {name:<{width}}  " + ("no images" if value is None else f"{value:7.2%}"))


def _listing(classes: Any) -> str:
    names = list(classes)
    return f"{len(names)} classes ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
