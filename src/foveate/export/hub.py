"""A network as a folder that timm loads, from a disk or from a Hugging Face hub."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from torch import nn

from foveate._extras import MissingExtraError
from foveate.io.class_names import class_name
from foveate.models.inspection import FAILURES, unshared

__all__ = ["HubEntry", "check_hub_folder", "push_to_hub", "save_for_hub"]


@dataclass(frozen=True, kw_only=True)
class HubEntry:
    """Contents of timm's configuration besides the network.

    Attributes:
        classes: Names of the classes.
        preparation: timm's data configuration: ``input_size``, ``mean``, ``std``, ``crop_pct``, ``interpolation``.
        license: License of the weights, if known.
    """

    classes: Sequence[str]
    preparation: Mapping[str, Any]
    license: str | None = None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of timm's two functions."""
        # not the network's own entry in timm, which is of other weights
        entry = {"tag": None, "license": self.license}
        words = {name: class_name(name) for name in self.classes if class_name(name) != name}
        described = {"label_descriptions": words} if len(words) == len(self.classes) else {}
        return {
            "model_config": {"label_names": list(self.classes), **described, "pretrained_cfg": entry},
            "data_config": dict(self.preparation),
            "safe_serialization": True,
        }


def save_for_hub(model: nn.Module, folder: Path, entry: HubEntry) -> None:
    """Write the folder that ``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads, after ``import foveate``.

    It holds ``config.json`` and ``model.safetensors``, as `timm.models.save_for_hf` writes them.
    """
    if "data_config" not in inspect.signature(timm.models.save_for_hf).parameters:
        raise MissingExtraError("this needs a newer timm; install it with: pip install 'foveate[export]'")
    with _storable(model):
        timm.models.save_for_hf(model, str(folder), **entry.arguments())


@contextmanager
def _storable(model: nn.Module) -> Iterator[None]:
    """Let timm see tied weights as separate ones for the duration: safetensors refuses those that share memory."""
    hook = model.register_state_dict_post_hook(lambda _, state, prefix, metadata: state.update(unshared(state)))
    try:
        yield
    finally:
        hook.remove()


def check_hub_folder(model: nn.Module, folder: Path, image: tuple[int, int, int]) -> None:
    """Load the folder of `save_for_hub` as timm does, and compare it with ``model`` on random images.

    A `ValueError` says that it is another network, or cannot be loaded.
    """
    try:
        loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    except (ValueError, SafetensorError, *FAILURES) as error:
        raise ValueError(f"timm cannot load the folder that was to be written: {error}") from error
    images = torch.rand(3, *image, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        if not torch.equal(loaded(images), model(images)):
            raise ValueError("what timm loads from the folder that was to be written is not this network")


def push_to_hub(model: nn.Module, repository: str, entry: HubEntry, *, page: Mapping[str, Any]) -> None:
    """Upload what `save_for_hub` writes, and a page about it, to ``owner/name`` on the Hugging Face hub.

    The repository is created if there is none, its page from ``license``, ``details`` and ``usage`` in ``page``. It
    needs a token with write access, as ``huggingface_hub`` finds it (``hf auth login``, or ``HF_TOKEN``).
    """
    try:
        with _storable(model):
            timm.models.push_to_hf_hub(model, repository, model_card=dict(page), **entry.arguments())
    except Exception as error:  # the hub's client raises its own kinds, and those of what it is built on
        raise ValueError(f"cannot upload to {repository}: {error}") from error
