"""Reading of files of weights, of this library and of others, as tensors by name, without running code in them."""

from __future__ import annotations

import argparse
import json
import logging
import threading
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from foveate._paths import expanded
from foveate.io.streams import printable
from foveate.models import shipped

__all__ = ["BACKBONE_KEY", "META_KEY", "PART", "WEIGHTS", "WeightsFile", "located", "read_weights", "without_prefix"]

logger = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
"""Name of the file with the final weights in the folder of a run."""
PART = "model."
"""Prefix of the network's own weights in a Lightning checkpoint."""
META_KEY = "foveate"
"""Key under which a checkpoint holds the fields of its `NetworkMeta`, as JSON."""
LIGHTNING = frozenset({META_KEY, "progress", "pytorch-lightning_version"})
"""Keys of which a checkpoint of a Lightning module has one, ours or another's."""
BACKBONE_KEY = "foveate.backbone"
"""Key under which a file that holds only what differs from a backbone names it, as JSON: ``name`` and ``sha256``."""
HARMLESS = (argparse.Namespace,)
"""Classes that a pickled checkpoint may name besides those that PyTorch allows; timm's have this one."""
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict")
RAW = ("state_dict", "model", "model_state_dict", "net")
"""Keys of averaged and of raw weights in checkpoints of others (timm, torchvision, DeiT, …)."""
LOCAL = "local-dir:"
"""What timm has in front of a folder."""
ENDINGS = (".safetensors", ".ckpt", ".pth", ".pt", ".tar", ".bin")
"""Usual endings of files of weights."""
WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes by DistributedDataParallel, AveragedModel and torch.compile."""


@dataclass(frozen=True)
class WeightsFile:
    """Contents of a file of weights."""

    tensors: dict[str, Tensor]
    meta_json: str | None = None
    """Fields of its `NetworkMeta`; None if this library has not written it."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of timm's training script; empty if it has not written the file."""
    backbone: Mapping[str, str] = field(default_factory=dict)
    """``name`` and ``sha256`` of the weights of which the file holds only what differs; empty if it holds all."""


def without_prefix(source: str | Path) -> str:
    """Return what names a file or folder of weights without timm's mark of a folder."""
    return str(source).removeprefix(LOCAL)


def located(source: str | Path) -> Path:
    """Return the file or folder that a source of weights names: the name of a shipped network, or a path."""
    name = without_prefix(source)
    if isinstance(source, str) and name in shipped():
        return shipped()[name]
    return expanded(name)


def read_weights(path: Path) -> WeightsFile:
    """Read a file of weights: safetensors, or what `torch.save` wrote, restricted to plain values.

    Names are those of the bare network, without wrappers. Averaged weights are preferred to raw ones in the same file,
    with a warning.

    Raises:
        ValueError: There is no such file, it is cut short or holds no weights, or loading it would run code;
            the message then says how to convert it.
    """
    if not path.is_file():
        raise ValueError(
            f"there is no checkpoint {path}; give a model.safetensors, a .ckpt, or the folder of a run{_beside(path)}"
        )
    if _is_safetensors(path):
        try:
            with _utf8(path) as name, safe_open(name, framework="pt") as file:
                header = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file, or is cut short: {error}") from error
        backbone = _backbone(header, path)
        return WeightsFile(_unwrapped(tensors, path), header.get(META_KEY), backbone=backbone)
    content = _unpickled(path)
    state = _chosen(content, path)
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise ValueError(f"{path} holds a {type(state).__name__}, not weights by name")
    lightning = isinstance(content, dict) and not LIGHTNING.isdisjoint(content)
    tensors = _unwrapped(_network_part(_unwrapped(state, path), lightning), path)
    if not tensors:
        raise ValueError(f"{path} does not hold weights by name")
    wrong = next((key for key, tensor in tensors.items() if not isinstance(tensor, Tensor)), None)
    if wrong is not None:
        raise ValueError(f"{path} does not hold weights by name: {wrong!r} is a {type(tensors[wrong]).__name__}")
    return WeightsFile(tensors, content.get(META_KEY), _arguments(content))


def _beside(path: Path) -> str:
    """List files that could have been meant by one that is not there."""
    folder = path if path.is_dir() else path.parent
    found = sorted(other.name for other in folder.glob("*") if other.suffix.lower() in ENDINGS and other.is_file())
    return f". There are {', '.join(found[:5])}" if found else ""


def _is_safetensors(path: Path) -> bool:
    """Tell by the first bytes, for files are renamed, and by the name where these are ambiguous."""
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is not a checkpoint but a pointer to one, of Git LFS; fetch it with `git lfs pull`")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise ValueError(f"{path} is not a checkpoint but a web page, perhaps an error of a server; fetch it again")
    if head.startswith(b"PK"):
        return False
    return head[8:9] == b"{" or path.suffix.lower() == ".safetensors"


def _backbone(header: Mapping[str, str], path: Path) -> dict[str, str]:
    try:
        backbone = json.loads(header.get(BACKBONE_KEY, "{}"))
    except ValueError:
        backbone = None
    if not isinstance(backbone, dict) or backbone.keys() not in (set(), {"name", "sha256"}):
        raise ValueError(f"{path} names its backbone in a way that is not understood: {header[BACKBONE_KEY]!r}")
    return backbone


_LOADING = threading.Lock()
"""Held while PyTorch is told what is harmless, which is told to the whole process."""


def _unpickled(path: Path) -> Any:
    try:
        with (
            _LOADING,
            path.open("rb") as file,  # torch.load would go by its name
            warnings.catch_warnings(),
            torch.serialization.safe_globals(  # taken back afterwards, so without those that the user allows
                [kind for kind in HARMLESS if kind not in torch.serialization.get_safe_globals()]
            ),
        ):
            warnings.simplefilter("ignore")  # about pickles not by `torch.save`, which are refused below
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # on damaged bytes the unpickler raises nearly anything
        try:
            named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        except Exception:
            named = []
        named = sorted(set(named) - {f"{kind.__module__}.{kind.__qualname__}" for kind in HARMLESS})
        if _is_program(path):
            raise ValueError(
                f"{path} is not a checkpoint of weights but a program, of torch.jit or torch.export; give the weights "
                "that it was made of"
            ) from error
        if not named:
            raise ValueError(f"{path} is not a checkpoint of weights, or is cut short") from error
        raise ValueError(
            f"{path} is not a checkpoint of weights alone: to load it, {', '.join(named)} would have to be run, which "
            "is never done here. If you trust who made it, write the weights alone: "
            "c = torch.load(FILE, weights_only=False); torch.save({k: c[k] for k in ('state_dict', "
            "'pytorch-lightning_version') if k in c}, 'weights.pth')"
        ) from error


def _is_program(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
    except (OSError, ValueError, zipfile.BadZipFile):
        return False
    return not names.isdisjoint({"constants.pkl", "archive_format"})


def _chosen(content: Any, path: Path) -> Any:
    """Return the state dict in a checkpoint; of two the averaged one, with a warning."""
    if not isinstance(content, dict):
        return content
    for key in AVERAGED:
        if isinstance(content.get(key), dict) and content[key]:
            raw = next((other for other in RAW if isinstance(content.get(other), dict)), None)
            if raw is not None:
                logger.warning("%s: taking the averaged weights in %r, not the raw ones in %r", path, key, raw)
            return content[key]
    for key in RAW:
        if key in content and not isinstance(content[key], Tensor):
            return content[key]
    return content


def _network_part(state: dict[str, Any], lightning: bool) -> dict[str, Any]:
    """Return the network's own weights of a Lightning checkpoint, averaged ones if there are any; else all.

    What others write without Lightning is cut where that leaves nothing out: ``model`` may be one part of a network.
    """
    for prefix in ("ema.module.", PART):
        part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if part and (lightning or len(part) == len(state)):
            return part
    return state


def _unwrapped(state: dict[str, Any], path: Path) -> dict[str, Any]:
    """Strip the prefixes of wrappers from the names, however many."""
    wrapped = {key: value for key, value in state.items() if key != "n_averaged"}  # of torch's AveragedModel
    names = list(wrapped)
    while names and (prefix := next((p for p in WRAPPERS if all(name.startswith(p) for name in names)), None)):
        names = [name.removeprefix(prefix) for name in names]
    names = [name.replace("_orig_mod.", "") for name in names]  # of a part that was compiled
    if names == list(wrapped):
        return state
    if len(set(names)) < len(names):
        raise ValueError(f"{path} holds the same weights more than once, wrapped and not; which are meant?")
    return dict(zip(names, wrapped.values(), strict=True))


def _arguments(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments of timm's training script in its checkpoint, with the name of the network."""
    arguments, arch = content.get("args"), content.get("arch")
    arguments = vars(arguments) if isinstance(arguments, argparse.Namespace) else arguments
    if not isinstance(arguments, Mapping) or not isinstance(arch, str):
        return {}
    return {**arguments, "model": arch}


@contextmanager
def _utf8(path: Path) -> Iterator[Path]:
    """Give a file a name in UTF-8 for the duration: safetensors takes no other."""
    if printable(str(path)) == str(path):
        yield path
        return
    with TemporaryDirectory() as folder:
        link = Path(folder) / "weights"
        link.symlink_to(path.absolute())
        yield link
