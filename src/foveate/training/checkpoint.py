"""Weights on disk: written with what is needed to build the network again, and checked when they are read."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from foveate._networks import create_network
from foveate._streams import printable
from foveate.models import shipped
from foveate.training.card import ModelCard, NetworkMeta, card_of, read_card, sha256_of
from foveate.training.files import write_bytes, write_json

__all__ = [
    "META_KEY",
    "WEIGHTS",
    "NetworkMeta",
    "load_network",
    "load_weights",
    "meta_to_json",
    "save_network",
    "save_with_card",
]

WEIGHTS = "model.safetensors"
"""Name of the file with the final weights in the folder of a run."""
META_KEY = "foveate"
"""Under which a checkpoint holds the fields of its `NetworkMeta`, as JSON."""


def save_network(path: Path, model: nn.Module, meta: NetworkMeta, *, half: bool = False) -> None:
    """Write the weights of ``model`` as safetensors with ``meta`` in the header, whole or not at all.

    With ``half`` the parameters are stored as float16, in half the space, and are float32 again when they are loaded.
    Running statistics, few numbers of a wide range, stay as they are.

    Raises:
        ValueError: A parameter is beyond the range of float16.
    """
    write_bytes(path, save(_tensors(model, half=half), metadata={META_KEY: meta_to_json(meta)}))


def _tensors(model: nn.Module, *, half: bool) -> dict[str, Tensor]:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters() if half else ():
        tensors[name] = tensors[name].half()
        if not tensors[name].isfinite().all() and parameter.isfinite().all():
            raise ValueError(f"{name} holds numbers beyond the range of float16; store it without `half`")
    return tensors


def save_with_card(path: Path, model: nn.Module, meta: NetworkMeta, *, half: bool = False, **about: Any) -> ModelCard:
    """Write the weights to ``path``, as `save_network` does, and their `ModelCard` beside them; return the card.

    Both are put in their places when both are whole; what was there before stays until then.

    Args:
        path: ``NAME.safetensors``.
        model: The network.
        meta: What else it needs.
        half: As in `save_network`.
        **about: The fields of the card that the network does not tell: ``licence``, ``data``, ``recipe``, ``test``,
            ``versions``.

    Raises:
        ValueError: A parameter is beyond the range of float16, or a field is not of its kind.
        OSError: A file cannot be written.
    """
    with TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        built = Path(folder) / path.name
        save_network(built, model, meta, half=half)
        stored = _stored(model, _read(built)[0])
        card = ModelCard(name=path.stem, network=meta, sha256=sha256_of(built), **stored, **about)
        write_json(card_of(built), dataclasses.asdict(card))
        for file in (card_of(built), built):  # in between, the card does not fit the older weights: loading says so
            file.replace(path.with_name(file.name))
    return card


def meta_to_json(meta: NetworkMeta) -> str:
    """Return the fields of ``meta`` as JSON, the form in which every checkpoint holds them."""
    return json.dumps(dataclasses.asdict(meta))


def load_network(path: str | Path) -> tuple[nn.Module, NetworkMeta]:
    """Build the network that a checkpoint holds, with its weights; in evaluation mode, on the CPU.

    Where a model card stands beside ``NAME.safetensors``, as ``NAME.json``, the weights must be those that it
    describes.

    Args:
        path: A ``model.safetensors``, a ``last.ckpt`` or ``best.ckpt``, or the folder of a run, which stands for the
            first of these; or a model card, which stands for the weights beside it; or the name of a network that
            ships with the library, see `foveate.models.shipped`. A ``.ckpt`` gives the averaged weights where the run
            averaged them.

    Raises:
        ValueError: There is no such file, it is cut short, it is no checkpoint of this library, its weights
            are not those of the network that it names, or it is not the file that the card beside it describes.
    """
    path = _file(path)
    tensors, meta_json = _read(path)
    card = _card_beside(path)
    if meta_json is None:
        raise ValueError(f"{path} does not say which network it holds; give one that `foveate train` has written")
    try:
        meta = NetworkMeta(**json.loads(meta_json))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} describes its network in a way that is not understood: {error}") from error
    if card is not None:
        card.check(path, network=meta)
    try:
        model = create_network(meta.model, meta.kwargs)
    except ValueError as error:
        raise ValueError(f"{path} names a network that cannot be built: {error}") from error
    _fill(model, tensors, f"{path} is not a checkpoint of {meta.model}")
    if card is not None:
        card.check(path, **_stored(model, tensors))
    return model.eval(), meta


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Give ``model`` the weights in ``path``: another checkpoint of the same network, or a plain state dict.

    ``path`` is one that `load_network` takes.

    A classifier for another number of classes is left out, and stays as ``model`` has it.

    Raises:
        ValueError: There is no such file, it is cut short or no checkpoint, it is one of another network, or not the
            file that the model card beside it describes.
    """
    path = _file(path)
    tensors, _ = _read(path)
    _card_beside(path)
    own = model.state_dict()
    heads = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else heads
    for key in [f"{head}.{kind}" for head in heads for kind in ("weight", "bias")]:
        if key in tensors and key in own and tensors[key].shape != own[key].shape:
            tensors[key] = own[key]
    _fill(model, tensors, f"{path} is a checkpoint of another network than {type(model).__name__} as asked for")


def _file(path: str | Path) -> Path:
    """Return the file of weights that a name, a folder or a card stands for, see `load_network`."""
    path = shipped().get(str(path), Path(path))
    path = path / WEIGHTS if path.is_dir() else path
    return path.with_suffix(".safetensors") if path.suffix == ".json" else path


def _card_beside(path: Path) -> ModelCard | None:
    """Return the card of the weights in ``path`` if there is one, having made sure that it is theirs."""
    if path.suffix != ".safetensors" or not card_of(path).is_file():
        return None
    card = read_card(card_of(path))
    card.check(path, sha256=sha256_of(path))
    return card


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
        if _sort(tensors[key]) != _sort(tensor):  # copying it would fail half-way, or lose the imaginary part
            raise ValueError(f"{complaint}: {key!r} is {_sort(tensors[key])}, in the network {_sort(tensor)}")
    unknown = next((key for key in tensors if key not in own), None)
    if unknown is not None:
        raise ValueError(f"{complaint}: the network has no {unknown!r}")
    model.load_state_dict(tensors)


def _sort(tensor: Tensor) -> str:
    """Return what a tensor must have in common with one that is copied into it, whatever their precision."""
    numbers = "complex" if tensor.is_complex() else "floating-point" if tensor.is_floating_point() else "integer"
    return f"{numbers}, {'without content' if tensor.is_meta else tensor.layout}"


def _stored(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return how many parameters the network has, and in which dtype ``tensors`` hold them."""
    dtypes = [str(tensors[name].dtype).removeprefix("torch.") for name, _ in model.named_parameters()]
    return {"parameters": sum(parameter.numel() for parameter in model.parameters()), "dtype": dtypes[0]}


def _read(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """Return the weights in a file and, if it holds them, the JSON of its `NetworkMeta`."""
    if not path.is_file():
        raise ValueError(f"there is no checkpoint {path}; give a model.safetensors, a .ckpt, or the folder of a run")
    if path.suffix == ".safetensors":
        try:
            with _utf8(path) as name, safe_open(name, framework="pt") as file:
                header = file.metadata() or {}
                return {key: file.get_tensor(key) for key in file.keys()}, header.get(META_KEY)  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file, or is cut short: {error}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle that no `torch.save` has written; it is refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on damaged bytes the unpickler raises nearly anything
        raise ValueError(f"{path} is not a checkpoint of weights, or is cut short") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise ValueError(f"{path} holds a {type(state).__name__}, not weights by name")
    tensors = _network_part(state)
    if not tensors:
        raise ValueError(f"{path} does not hold weights by name")
    wrong = next((key for key, tensor in tensors.items() if not isinstance(tensor, Tensor)), None)
    if wrong is not None:
        raise ValueError(f"{path} does not hold weights by name: {wrong!r} is a {type(tensors[wrong]).__name__}")
    return tensors, content.get(META_KEY)


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


def _network_part(state: dict[str, Any]) -> dict[str, Tensor]:
    """Return the network's own weights of a Lightning checkpoint: the averaged ones if there are; else all."""
    for prefix in ("ema.module.", "model."):
        part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if part:
            return part
    return state
