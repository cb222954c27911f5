"""A network as a folder that timm loads, from a disk or from a Hugging Face hub."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import CommitOperationAdd, HfApi, ModelCardData
from safetensors import SafetensorError
from torch import nn

from foveate._extras import MissingExtraError
from foveate.io.class_names import class_name
from foveate.models.inspection import FAILURES, unshared
from foveate.models.zoo import registered

__all__ = ["HubEntry", "check_hub_folder", "page_of", "push_to_hub", "save_for_hub"]

PAGE = "README.md"


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
    try:
        with _storable(model):
            timm.models.save_for_hf(model, str(folder), **entry.arguments())
    except (ValueError, *FAILURES) as error:
        raise ValueError(
            f"to: timm cannot describe {type(model).__name__} in a hub's folder ({error}); export it to weights, torch "
            "or onnx"
        ) from error


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


def push_to_hub(files: Sequence[Path], repository: str, page: str) -> None:
    """Upload files, and a page about them if there is none yet, to ``owner/name`` on the Hugging Face hub.

    The repository is created if need be. It takes a token with write access, as ``huggingface_hub`` finds it
    (``hf auth login``, or ``HF_TOKEN``).
    """
    content: dict[str, Path | bytes] = {path.name: path for path in files}
    try:
        api = HfApi()
        repository = api.create_repo(repository, exist_ok=True).repo_id  # with the owner, where that was left out
        if not api.file_exists(repo_id=repository, filename=PAGE):
            content[PAGE] = page.encode()
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=of) for name, of in content.items()]
        api.create_commit(repo_id=repository, operations=operations, commit_message="Add model")
    except Exception as error:  # the hub's client raises its own kinds, and those of what it is built on
        raise ValueError(f"cannot upload to {repository}: {error}") from error


def page_of(model: str, about: Mapping[str, Any]) -> str:
    """Write the page of a network on a hub: what it was trained on and by, its result, and how it is loaded.

    Args:
        model: Name of the network in timm.
        about: ``data``, ``recipe``, ``test`` and ``license``, as far as they are known.
    """
    tags = ["image-classification", "timm"]
    license, name = _license(about.get("license"))
    data = ModelCardData(license=license, license_name=name, library_name="timm", pipeline_tag=tags[0], tags=tags)
    parts = [f"---\n{data.to_yaml()}\n---\n# {model}\n"]
    for title, facts in {"Trained on": "data", "Recipe": "recipe", "Result": "test"}.items():
        if about.get(facts):
            parts.append(f"## {title}\n\n" + "".join(f"- {name}: {value}\n" for name, value in about[facts].items()))
    if model.partition(".")[0] in registered():
        parts.append("The network is one of `foveate`: `import foveate` before `timm.create_model`.\n")
    return "\n".join(parts)


def _license(spdx: str | None) -> tuple[str, str | None]:
    """Return what the hub calls a license, and, where that is ``other``, its name."""
    name = (spdx or "unknown").lower()
    if name.startswith("licenseref-"):
        return "other", name.removeprefix("licenseref-")
    return re.sub("-(only|or-later)$", "", name), None
