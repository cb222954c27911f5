"""Loading a `TrainedNetwork` from a file, a folder or a name."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_data_config
from timm.models import PretrainedCfg
from torch import nn

from foveate import _checks
from foveate._devices import check_device
from foveate._paths import expanded
from foveate.io import NetworkMeta, load_network
from foveate.io.files import read_json
from foveate.io.foreign import build_described
from foveate.io.reading import without_prefix
from foveate.models import shipped
from foveate.models.shipped import ALIASES
from foveate.trained.classifier import TrainedClassifier
from foveate.trained.detector import TrainedDetector
from foveate.trained.evaluation import EvaluationResult, open_as_trained
from foveate.trained.network import TrainedNetwork
from foveate.trained.segmenter import TrainedSegmenter

__all__ = ["build", "check_data_of_run", "evaluate", "load", "told_apart"]

KINDS: dict[str, type[TrainedNetwork]] = {
    "classification": TrainedClassifier,
    "segmentation": TrainedSegmenter,
    "detection": TrainedDetector,
}
"""What is made of a network, by the task that it was trained for."""


def load(source: str | Path, *, device: str | torch.device = "cpu") -> TrainedNetwork:
    """Load a trained network, with how its images are prepared and what its outputs mean.

    Args:
        source: The folder of a run, or one that `TrainedNetwork.save`, ``foveate export`` or timm's
            ``save_for_hf`` has written, also as ``local-dir:FOLDER``; a ``model.safetensors``, a ``.ckpt``, or a
            ``.pth.tar`` of timm's training script; the name of a network that comes with the library,
            ``cram_resnet_tiny.digits``, or of one that timm has weights for, fetched if need be. What is on the disk
            goes before a name of timm's.
        device: ``auto`` (a CUDA GPU if there is one, else the CPU), ``cpu``, ``cuda``, ``mps``, or a device.

    Raises:
        ValueError: There is no such file or network, it has no weights, they cannot be fetched, or its outputs are not
            those of its task for color images.
        MissingExtraError: The network, such as ``cram_tf_efficientnet_lite0.flowers``, is what differs from weights in
            the extra ``photos``, which is not installed.
    """
    if not isinstance(source, str | os.PathLike):
        raise ValueError(
            f"source must be a file, a folder or a name; got a {type(source).__name__}. Save a network of your own "
            "with foveate.io.save_network, under a name that timm.models.register_model knows"
        )
    where = check_device(device)
    name = without_prefix(source)
    name = ALIASES.get(name, name)
    path, ours = expanded(name), isinstance(source, str) and name in shipped()
    if not path.exists() and not ours and timm.is_model(name):
        return build(name, pretrained=True, device=where)
    try:
        network, meta = load_network(name if ours else path)
    except ValueError as error:
        close = "" if path.exists() else _checks.suggestion(name, [*shipped(), *timm.list_models()])
        raise ValueError(f"{error}{close}") from error
    return _checked(network, meta, str(source), where)


def evaluate(
    source: str | Path, data: Any = None, *, device: str | torch.device = "auto", **options: Any
) -> EvaluationResult:
    """Evaluate a trained network on labelled images; what ``foveate evaluate`` does.

        print(foveate.evaluate("runs/mine", split="val"))

    Data that are named are opened as in the training: how a set without validation images was divided, what digits were
    drawn, where its files are.

    Args:
        source: As `load` takes it.
        data: A folder or the name of a data set, what was opened, or a `DataLoader`. Not given: what the run was
            trained on, else digits; of data that were opened before the training, only the name is known, so that they
            have to be given.
        device: Where to compute; ``auto`` is a CUDA GPU if there is one, else the CPU.
        options: ``split``, ``batch_size``, ``workers`` and ``precision``; see `TrainedNetwork.evaluate`.

    Raises:
        ValueError: As `load` and `TrainedNetwork.evaluate` raise it; or ``data`` are not given, and what is there under
            their name is not what the run was trained on.
    """
    trained = load(source, device=device)
    if data is None:
        data = open_as_trained(trained)
        check_data_of_run(data, source)
    return trained.evaluate(data, **options)


def check_data_of_run(data: Any, source: str | Path) -> None:
    """Raise a `ValueError` if a run was trained on other images than those that were opened for it by their name."""
    from foveate.training.build import DRAWN, fingerprint_of
    from foveate.training.run_folder import RESULT

    path = expanded(without_prefix(source))
    folder = path if path.is_dir() else path.parent
    result = read_json(folder / RESULT) if path.exists() and (folder / RESULT).is_file() else {}
    then = result.get("data") if isinstance(result, dict) else None
    if not isinstance(then, dict) or not isinstance(then.get("images"), dict):
        return
    # How images were augmented does not matter here, and the network knows how to prepare them.
    drawn = {name: value for name, value in then.get("prepared", {}).items() if name in DRAWN}
    then = {**then, "prepared": drawn}
    try:
        fingerprint_of(data, then.get("augment", ""), splits=then["images"]).check(then, folder)  # others may be added
    except ValueError as error:
        raise ValueError(
            f"data: what is there now is not what {source} was trained on; put it back, or give other data by name or "
            f"opened: {error}"
        ) from error


def build(
    name: str,
    *,
    pretrained: bool = False,
    seed: int = 0,
    num_classes: int | None = None,
    img_size: int | tuple[int, int] | None = None,
    model_args: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
) -> TrainedNetwork:
    """Build a network that timm knows, prepared for images as timm prepares them.

    ``pretrained`` are the weights that timm has for it, fetched if need be, else they are random. ``num_classes`` and
    ``img_size`` (height and width) are by default those of timm's weights; ``model_args`` are further keywords. What is
    random is drawn from ``seed``; PyTorch's own generator is left as it was.

    Raises:
        ValueError: There is no such network, it does not take these arguments, it has no weights, they cannot be
            fetched, or it is no classifier of color images.
    """
    source, where = "weights of timm" if pretrained else f"untrained, seed {seed}", check_device(device)
    _checks.integer("seed", seed, minimum=0)
    if pretrained and name in shipped() and not model_args:  # whose card says more than timm
        with torch.random.fork_rng(devices=[]):
            network, meta = load_network(name)
        same_size = img_size is None or _checks.pair("img_size", img_size) == tuple(meta.img_size)
        if same_size and num_classes in (None, len(meta.classes)):
            return _checked(network, dataclasses.replace(meta, model=name), source, where)
    known = _configuration(name)
    own = known.num_classes if known else 1000
    if pretrained and known and not known.has_weights:
        raise ValueError(
            f"there are no weights for {name}; train it, as in `foveate train {name}`, or load one that is trained, "
            f"such as {', '.join(shipped())}"
        )
    size = _checks.pair("img_size", img_size if img_size is not None else tuple(known.input_size[1:]) if known else 224)
    number = own if num_classes is None else num_classes
    try:
        with torch.random.fork_rng(devices=[]):  # what the caller draws goes on as it would have
            torch.default_generator.manual_seed(seed)
            network, meta = build_described(
                name,
                resolve_data_config({}, pretrained_cfg=known.to_dict() if known else {"num_classes": number}),
                num_classes=number,
                img_size=size,
                classes=_class_names(known, number) if pretrained and known and number == own else None,
                pretrained=pretrained,
                model_args=model_args,
            )
    except OSError as error:
        raise ValueError(
            f"the weights of {name} cannot be fetched: {error}; give a file of them, or try again with a connection"
        ) from error
    return _checked(network, meta, source, where)


def told_apart(networks: Iterable[TrainedNetwork]) -> list[TrainedNetwork]:
    """Return ``networks`` with unique names: equal ones get their source appended, and the same one twice a number."""
    several = list(networks)
    models = [one.meta.model for one in several]
    names = [
        name if models.count(name) == 1 else f"{name} ({one.source})" for one, name in zip(several, models, strict=True)
    ]
    numbers = [names[:index].count(name) + 1 for index, name in enumerate(names)]
    return [
        dataclasses.replace(one, name=name if number == 1 else f"{name} {number}")
        for one, name, number in zip(several, names, numbers, strict=True)
    ]


def _checked(network: nn.Module, meta: NetworkMeta, source: str, device: torch.device) -> TrainedNetwork:
    if meta.task not in KINDS:
        raise ValueError(
            f"{source} was trained for {meta.task}, and what is loaded here is for {', '.join(KINDS)}; "
            "foveate.io.load_network gives the network itself"
        )
    trained = KINDS[meta.task](network.to(device).eval(), meta, source, meta.model)
    height, width = meta.img_size
    trained.check_network((height, width))
    return trained


def _configuration(name: str) -> PretrainedCfg | None:
    """Return what timm knows of a network's weights; of a network that it does not know nothing."""
    if not timm.is_model(name):
        return None
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        raise ValueError(f"there are no weights called {name}; there are {', '.join(tags) or 'none'}") from error


def _class_names(known: PretrainedCfg, number: int) -> list[str] | None:
    """Return the names of the classes of timm's weights; None where they are not known."""
    if known.label_names is not None and len(known.label_names) == number:
        return list(known.label_names)
    subset = infer_imagenet_subset({"num_classes": number})
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    return [info.index_to_label_name(index) for index in range(number)]
