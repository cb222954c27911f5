"""Weights on disk: written with what is needed to build the network again, and checked when they are read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn

from foveate.io.card import ModelCard, NetworkMeta, card_of, meta_of, read_card, sha256_of
from foveate.io.files import write_bytes, write_json
from foveate.io.fitting import fill, resized
from foveate.io.foreign import meta_of_hub, meta_of_script
from foveate.io.reading import META_KEY, WEIGHTS, WeightsFile, read_weights
from foveate.models import shipped
from foveate.models.building import create_network
from foveate.models.inspection import FAILURES, unshared
from foveate.models.tables import renamed

__all__ = [
    "META_KEY",
    "WEIGHTS",
    "NetworkMeta",
    "load_network",
    "load_weights",
    "meta_to_json",
    "rehearse_saving",
    "save_network",
    "save_with_card",
]

PICKLED = "pytorch_model.bin"
"""Name of the file with the weights in a folder that timm writes for a hub, if it is not `WEIGHTS`."""


def save_network(path: Path, model: nn.Module, meta: NetworkMeta, *, half: bool = False) -> None:
    """Write the weights of ``model`` as safetensors with ``meta`` in the header, whole or not at all.

    With ``half`` the parameters are stored as float16, in half the space, and are float32 again when they are loaded.
    Running statistics, few numbers of a wide range, stay as they are.

    Raises:
        ValueError: A parameter is beyond the range of float16.
    """
    write_bytes(path, _serialized(model, meta, half=half))


def rehearse_saving(path: Path, model: nn.Module, meta: NetworkMeta) -> None:
    """Do all that `save_network` would do but leave a file, so that what hinders it is known before the training.

    Raises:
        OSError: The file cannot be written.
    """
    write_bytes(path, _serialized(model, meta, half=False), rehearsal=True)


def _serialized(model: nn.Module, meta: NetworkMeta, *, half: bool) -> bytes:
    return save(_tensors(model, half=half), metadata={META_KEY: meta_to_json(meta)})


def _tensors(model: nn.Module, *, half: bool) -> dict[str, Tensor]:
    tensors = unshared({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})
    for name, parameter in model.named_parameters(remove_duplicate=False) if half else ():
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
        stored = _stored(model, read_weights(built).tensors)
        card = ModelCard(name=path.stem, network=meta, sha256=sha256_of(built), **stored, **about)
        write_json(card_of(built), dataclasses.asdict(card))
        for file in (card_of(built), built):  # in between, the card does not fit the older weights: loading says so
            file.replace(path.with_name(file.name))
    return card


def meta_to_json(meta: NetworkMeta) -> str:
    """Return the fields of ``meta`` as JSON, the form in which every checkpoint holds them."""
    fields = dataclasses.asdict(meta)
    if meta.task == NetworkMeta.task:
        del fields["task"]  # unknown to version 0.1
    return json.dumps(fields)


def load_network(path: str | Path) -> tuple[nn.Module, NetworkMeta]:
    """Build the network that a checkpoint holds, with its weights; in evaluation mode, on the CPU.

    Where a model card stands beside ``NAME.safetensors``, as ``NAME.json``, the weights must be those that it
    describes.

    Args:
        path: A ``model.safetensors``, a ``last.ckpt`` or ``best.ckpt``, or the folder of a run, which stands for the
            first of these; a ``.pth.tar`` of timm's training script; the folder that `timm.models.save_for_hf` writes;
            a model card, which stands for the weights beside it; or the name of a network that ships with the library,
            see `foveate.models.shipped`. Of a file with averaged weights beside the raw ones, the averaged ones are
            taken.

    Raises:
        ValueError: There is no such file, it is cut short, it is no checkpoint of this library, its weights
            are not those of the network that it names, or it is not the file that the card beside it describes.
    """
    path = _file(path)
    file = read_weights(path)
    tensors = file.tensors
    card = _card_beside(path)
    meta = _meta(path, file)
    if card is not None:
        card.check(path, network=meta)
    try:
        model = create_network(meta.model, meta.kwargs)
    except ValueError as error:
        raise ValueError(f"{path} names a network that cannot be built: {error}") from error
    tensors = renamed(tensors, model)
    fill(model, tensors, f"{path} is not a checkpoint of {meta.model}")
    if card is not None:
        card.check(path, **_stored(model, tensors))
    return model.eval(), meta


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Give ``model`` the weights in ``path``: another checkpoint of the same network, or a plain state dict.

    ``path`` is one that `load_network` takes.

    A classifier for another number of classes is left out, and stays as ``model`` has it. Relative tables and position
    embeddings for images of another size are resized; a warning says which.

    Raises:
        ValueError: There is no such file, it is cut short or no checkpoint, it is one of another network, or not the
            file that the model card beside it describes.
    """
    path = _file(path)
    tensors = read_weights(path).tensors
    _card_beside(path)
    own = model.state_dict()
    heads = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else heads
    for key in [f"{head}.{kind}" for head in heads for kind in ("weight", "bias")]:
        if key in tensors and key in own and tensors[key].shape != own[key].shape:
            tensors[key] = own[key]
    tensors = resized(model, tensors, path)
    fill(model, tensors, f"{path} is a checkpoint of another network than {type(model).__name__} as asked for")


def _file(path: str | Path) -> Path:
    """Return the file of weights that a name, a folder or a card stands for, see `load_network`."""
    path = shipped().get(str(path), Path(path))
    if path.is_dir():
        other = path / PICKLED
        return other if other.is_file() and not (path / WEIGHTS).is_file() else path / WEIGHTS
    return path.with_suffix(".safetensors") if path.suffix == ".json" else path


def _card_beside(path: Path) -> ModelCard | None:
    """Return the card of the weights in ``path`` if there is one, having made sure that it is theirs."""
    if path.suffix != ".safetensors" or not card_of(path).is_file():
        return None
    card = read_card(card_of(path))
    card.check(path, sha256=sha256_of(path))
    return card


def _stored(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return how many parameters the network has, and in which dtype ``tensors`` hold them."""
    dtypes = [str(tensors[name].dtype).removeprefix("torch.") for name, _ in model.named_parameters()]
    return {"parameters": sum(parameter.numel() for parameter in model.parameters()), "dtype": dtypes[0]}


def _meta(path: Path, file: WeightsFile) -> NetworkMeta:
    """Return how to build and feed the network whose weights are in ``file``, as this library or timm wrote it."""
    if file.meta_json is not None:
        try:
            return meta_of(json.loads(file.meta_json))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{path} describes its network in a way that is not understood: {error}") from error
    try:
        meta = meta_of_script(file.arguments) if file.arguments else meta_of_hub(path)
    except (ValueError, *FAILURES) as error:
        raise ValueError(f"{path} describes its network in a way that is not understood: {error}") from error
    if meta is None:
        raise ValueError(
            f"{path} does not say which network it holds; give one that `foveate train` or timm's train.py has "
            "written, or train on from it with `foveate train NETWORK --checkpoint`"
        )
    return meta
