"""Loading weights into a network: names and shapes agree, or are converted with a warning, or it is an error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from foveate.models import checkpoint_filter_fn
from foveate.models.inspection import FAILURES

__all__ = ["fill", "resized"]

logger = logging.getLogger(__name__)

COUNT = "num_batches_tracked"


def fill(model: nn.Module, tensors: Mapping[str, Tensor], complaint: str) -> None:
    """Load ``tensors`` into ``model`` if names and shapes agree; else raise, naming the first that does not.

    Of parameters shared under several names, a file need hold only one.
    """
    own = model.state_dict(keep_vars=True)
    tensors = {**_tied(own, tensors), **tensors}
    for key in own:  # which weights of before PyTorch 0.4.1, and converted ones, have not, and nothing depends on
        if key.endswith(COUNT) and f"{key.removesuffix(COUNT)}running_mean" in tensors:
            tensors.setdefault(key, torch.zeros((), dtype=torch.long))
    for key, tensor in own.items():
        if key not in tensors:
            raise ValueError(f"{complaint}: it has no {key!r}")
        if tensors[key].shape != tensor.shape:
            raise ValueError(
                f"{complaint}: {key!r} has shape {tuple(tensors[key].shape)}, the network {tuple(tensor.shape)}"
            )
        if _sort(tensors[key]) != _sort(tensor):  # copying it would fail half-way, or lose the imaginary part
            raise ValueError(f"{complaint}: {key!r} is {_sort(tensors[key])}, in the network {_sort(tensor)}")
    unknown = next((key for key in tensors if key not in own), None)
    if unknown is not None:
        raise ValueError(f"{complaint}: the network has no {unknown!r}")
    model.load_state_dict(tensors)


def _tied(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return, for the names that a file lacks, its tensor under another name of the same parameter."""
    held = {id(own[key]): tensor for key, tensor in tensors.items() if key in own}
    return {key: held[id(own[key])] for key in own if key not in tensors and id(own[key]) in held}


def resized(model: nn.Module, given: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the tensors ``given``, stretched where they depend on the size of the images, with a warning.

    Relative tables of GSA and AA are fitted as by `foveate.resize_relative_tables`. Of other networks, position
    embeddings and tables of relative positions are resized by timm's own function for that kind of network, if it has
    one.
    """
    own = model.state_dict()
    try:
        tensors = checkpoint_filter_fn(given, model)  # names of version 0.1 as well
    except ValueError:  # another network
        return dict(given)
    unlike = [key for key in own if key in given and key in tensors and given[key].shape != own[key].shape]
    if not unlike:
        return dict(tensors)
    fitted = {key: tensors[key] for key in unlike}
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        try:
            converted = convert(dict(given), model)
        except (ValueError, *FAILURES):  # another network
            converted = {}
        fitted |= {key: converted[key] for key in unlike if isinstance(converted.get(key), Tensor)}
    fitted = {key: tensor for key, tensor in fitted.items() if tensor.shape == own[key].shape}
    if fitted:
        names = ", ".join(fitted) if len(fitted) < 5 else f"{', '.join(list(fitted)[:3])}, …"
        logger.warning("%s is of images of another size; resized %d tensors: %s", path, len(fitted), names)
    return {**tensors, **fitted}


def _sort(tensor: Tensor) -> str:
    """Return what a tensor must have in common with one that is copied into it, whatever their precision."""
    numbers = "complex" if tensor.is_complex() else "floating-point" if tensor.is_floating_point() else "integer"
    return f"{numbers}, {'without content' if tensor.is_meta else tensor.layout}"
