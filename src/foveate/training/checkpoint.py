"""Weights on disk: written with what is needed to build the network again, and checked when they are read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from foveate._networks import create_network
from foveate.training.files import write_bytes

__all__ = ["META_KEY", "WEIGHTS", "NetworkMeta", "load_network", "load_weights", "meta_to_json", "save_network"]

WEIGHTS = "model.safetensors"
"""Name of the file with the final weights in the folder of a run."""
META_KEY = "foveate"
"""Under which a checkpoint holds the fields of its `NetworkMeta`, as JSON."""


@dataclass(frozen=True, kw_only=True)
class NetworkMeta:
    """What else than its weights a network needs in order to be used: saved with every checkpoint.

    Attributes:
        model: Name under which timm knows the network.
        kwargs: What `timm.create_model` gets beside the name.
        classes: Names of the classes, in the order of the network's outputs.
        img_size: ``(height, width)`` of the images that it was trained on.
        mean: Of each channel, subtracted from images in [0, 1].
        std: Of each channel, by which they are then divided.
        crop_pct: The shorter side of a test image becomes ``img_size / crop_pct`` before its centre is cropped.
        interpolation: With which it is resized.
    """

    model: str
    kwargs: Mapping[str, Any]
    classes: Sequence[str]
    img_size: Sequence[int]
    mean: Sequence[float]
    std: Sequence[float]
    crop_pct: float
    interpolation: str


def save_network(path: Path, model: nn.Module, meta: NetworkMeta) -> None:
    """Write the weights of ``model`` as safetensors with ``meta`` in the header, whole or not at all."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_bytes(path, save(tensors, metadata={META_KEY: meta_to_json(meta)}))


def meta_to_json(meta: NetworkMeta) -> str:
    """Return the fields of ``meta`` as JSON, the form in which every checkpoint holds them."""
    return json.dumps(dataclasses.asdict(meta))


def load_network(path: str | Path) -> tuple[nn.Module, NetworkMeta]:
    """Build the network that a checkpoint holds, with its weights; in evaluation mode, on the CPU.

    Args:
        path: A ``model.safetensors``, a ``last.ckpt`` or ``best.ckpt``, or the folder of a run, which stands for the
            first of these. A ``.ckpt`` gives the averaged weights where the run averaged them.

    Raises:
        ValueError: There is no such file, it is cut short, it is no checkpoint of this library, or its weights
            are not those of the network that it names.
    """
    path = Path(path)
    path = path / WEIGHTS if path.is_dir() else path
    tensors, meta_json = _read(path)
    if meta_json is None:
        raise ValueError(f"{path} does not say which network it holds; give one that `foveate train` has written")
    try:
        meta = NetworkMeta(**json.loads(meta_json))
    except (json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"{path} describes its network in a way that is not understood: {error}") from error
    model = create_network(meta.model, meta.kwargs)
    _fill(model, tensors, f"{path} is not a checkpoint of {meta.model}")
    return model.eval(), meta


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Give ``model`` the weights in ``path``: another checkpoint of the same network, or a plain state dict.

    A classifier for another number of classes is left out, and stays as ``model`` has it.

    Raises:
        ValueError: There is no such file, it is cut short or no checkpoint, or it is one of another network.
    """
    tensors, _ = _read(Path(path))
    own = model.state_dict()
    heads = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else heads
    for key in [f"{head}.{kind}" for head in heads for kind in ("weight", "bias")]:
        if key in tensors and key in own and tensors[key].shape != own[key].shape:
            tensors[key] = own[key]
    _fill(model, tensors, f"{path} is a checkpoint of another network than {type(model).__name__} as asked for")


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], complaint: str) -> None:
    """Load ``tensors`` into ``model`` if names and shapes agree; else raise, naming the first that does not."""
    own = model.state_dict()
    for key, tensor in own.items():
        if key not in tensors:
            raise ValueError(f"{complaint}: it has no {key!r}")
        if tensors[key].shape != tensor.shape:
            raise ValueError(
                f"{complaint}: {key!r} has shape {tuple(tensors[key].shape)}, the network {tuple(tensor.shape)}"
            )
    unknown = next((key for key in tensors if key not in own), None)
    if unknown is not None:
        raise ValueError(f"{complaint}: the network has no {unknown!r}")
    model.load_state_dict(tensors)


def _read(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """Return the weights in a file and, if it holds them, the JSON of its `NetworkMeta`."""
    if not path.is_file():
        raise ValueError(f"there is no checkpoint {path}; give a model.safetensors, a .ckpt, or the folder of a run")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                return {key: file.get_tensor(key) for key in file.keys()}, header.get(META_KEY)  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file, or is cut short: {error}") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on damaged bytes the unpickler raises nearly anything
        raise ValueError(f"{path} is not a checkpoint of weights, or is cut short") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not weights by name")
    tensors = _network_part(content.get("state_dict", content))
    if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise ValueError(f"{path} does not hold weights by name")
    return tensors, content.get(META_KEY)


def _network_part(state: dict[str, Any]) -> dict[str, Tensor]:
    """Return the network's own weights of a Lightning checkpoint: the averaged ones if there are; else all."""
    for prefix in ("ema.module.", "model."):
        part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if part:
            return part
    return state
