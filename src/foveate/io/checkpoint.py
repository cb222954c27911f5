"""Checkpoints: weights with what is needed to build the network again, checked when they are read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn

from foveate._extras import MissingExtraError
from foveate.io.card import ModelCard, NetworkMeta, card_of, meta_of, read_card, sha256_of
from foveate.io.files import write_bytes, write_json
from foveate.io.fitting import fill, resized
from foveate.io.foreign import meta_of_hub, meta_of_script
from foveate.io.reading import BACKBONE_KEY, META_KEY, PART, WEIGHTS, WeightsFile, located, read_weights
from foveate.models.dense import create_with_head
from foveate.models.inspection import FAILURES, eager, unshared
from foveate.models.packaged import PACKAGED, backbone_of, completed, differing
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

OUTPUTS = tuple(
    f"{PART}{layer}."
    for layer in (
        "segmentation_head",
        "roi_heads.box_predictor",
        "roi_heads.mask_predictor.mask_fcn_logits",
        "head.classification_head.cls_logits",
    )
)
"""Layers of segmentation networks and detectors whose outputs are as many as there are classes."""
PICKLED = "pytorch_model.bin"
"""Other name, besides `WEIGHTS`, of the weights in a folder that timm writes for a hub."""


def save_network(
    path: Path, model: nn.Module, meta: NetworkMeta, *, half: bool = False, difference: bool = False
) -> None:
    """Save the weights of ``model`` atomically as safetensors with ``meta`` in the header.

    With ``half`` the parameters are stored as float16, in half the space, and are float32 again when they are loaded.
    Running statistics, few numbers of a wide range, keep their dtype. With ``difference`` only those tensors are stored
    that differ from the weights of a Python package, with which `load_network` completes them.

    Raises:
        ValueError: A parameter is beyond the range of float16, or there is no such package for the network.
        MissingExtraError: The package is not installed.
    """
    write_bytes(path, _serialized(model, meta, half=half, difference=difference))


def rehearse_saving(path: Path, model: nn.Module, meta: NetworkMeta) -> None:
    """Rehearse `save_network` without leaving a file, so that obstacles are known before the training."""
    write_bytes(path, _serialized(model, meta, half=False), rehearsal=True)


def _serialized(model: nn.Module, meta: NetworkMeta, *, half: bool, difference: bool = False) -> bytes:
    tensors, header = _tensors(model, half=half), {META_KEY: meta_to_json(meta)}
    if difference:
        backbone = backbone_of(meta.model)
        differ = differing(_tensors(model, half=False), backbone)  # before rounding
        tensors = {name: tensors[name] for name in differ}
        header[BACKBONE_KEY] = json.dumps({"name": backbone, "sha256": PACKAGED[backbone].sha256})
    return save(tensors, metadata=header)


def _tensors(model: nn.Module, *, half: bool) -> dict[str, Tensor]:
    tensors = unshared({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})
    for name, parameter in model.named_parameters(remove_duplicate=False) if half else ():
        if not parameter.is_floating_point():
            continue
        tensors[name] = tensors[name].half()
        if not tensors[name].isfinite().all() and parameter.isfinite().all():
            raise ValueError(f"{name} holds numbers beyond the range of float16; store it without `half`")
    return tensors


def save_with_card(
    path: Path, model: nn.Module, meta: NetworkMeta, *, half: bool = False, difference: bool = False, **about: Any
) -> ModelCard:
    """Save the weights to ``path``, as `save_network` does, and their `ModelCard` beside them; return the card.

    Both replace earlier files only when both are whole. ``about`` holds further fields of the card: ``license``,
    ``data``, ``recipe``, ``test``, ``versions``.
    """
    with TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        built = Path(folder) / path.name
        save_network(built, model, meta, half=half, difference=difference)
        written = read_weights(built)
        stored = {**_stored(model, written.tensors), "backbone": written.backbone}
        card = ModelCard(name=path.stem, network=meta, sha256=sha256_of(built), **stored, **about)
        write_json(card_of(built), card.fields())
        for file in (card_of(built), built):  # in between, loading says that the two do not fit
            file.replace(path.with_name(file.name))
    return card


def meta_to_json(meta: NetworkMeta) -> str:
    """Return the fields of ``meta`` as JSON, as in every checkpoint."""
    fields = dataclasses.asdict(meta)
    for name in ("intensity_range", "task", "head", "head_args"):  # unknown to older versions
        if fields[name] in (None, "", {}, NetworkMeta.task):
            del fields[name]
    return json.dumps(fields)


def load_network(path: str | Path) -> tuple[nn.Module, NetworkMeta]:
    """Build the network of a checkpoint, with its weights; in evaluation mode, on the CPU.

    Where a model card ``NAME.json`` stands beside ``NAME.safetensors``, the weights must be those that it describes.

    Args:
        path: A ``model.safetensors``, ``last.ckpt`` or ``best.ckpt``, or the folder of a run, which stands for the
            first of these; a ``.pth.tar`` of timm's training script; a folder of `timm.models.save_for_hf`; a model
            card, which stands for the weights beside it; or the name of a network that ships with the library, see
            `foveate.models.shipped`. Averaged weights are preferred to raw ones in the same file.

    Raises:
        ValueError: There is no such file, it is cut short, it is no checkpoint of this library, its weights
            are not those of the network that it names, or it is not the file that the card beside it describes.
        MissingExtraError: It holds what differs from weights that come as a package, which is not installed.
    """
    path = _file(path)
    file = read_weights(path)
    tensors = file.tensors
    card = _card_beside(path)
    meta = _meta(path, file)
    if card is not None:
        card.check(path, network=meta, backbone=file.backbone)
    try:
        height, width = meta.img_size
        model = create_with_head(meta.model, meta.kwargs, meta.head, head_args=meta.head_args, img_size=(height, width))
    except ValueError as error:
        raise ValueError(f"{path} names a network that cannot be built: {error}") from error
    tensors = renamed(tensors, model)
    fill(model, _whole(tensors, file), f"{path} is not a checkpoint of {meta.model}")
    if card is not None:
        card.check(path, **_stored(model, tensors))
    return model.eval(), meta


def load_weights(model: nn.Module, path: str | Path) -> NetworkMeta | None:
    """Load the weights in ``path`` into ``model``: another checkpoint of the same network, or a plain state dict.

    ``path`` is as in `load_network`. ``model`` keeps its own classifier if the number of classes differs. Relative
    tables and position embeddings for images of another size are resized; a warning names them.

    Returns:
        What the file says of its network, such as how images are normalized for it; None if it says nothing.

    Raises:
        ValueError: There is no such file, it is cut short or no checkpoint, it is one of another network, or not the
            file that the model card beside it describes.
    """
    path, model = _file(path), eager(model)
    file = read_weights(path)
    tensors = _whole(file.tensors, file)
    _card_beside(path)
    meta = None
    with suppress(ValueError, MissingExtraError):  # the weights are all that is needed of it
        meta = _meta(path, file)
    own = model.state_dict()
    if tensors and all(f"{PART}{key}" in own for key in tensors):  # of a segmentation network or a detector alone
        tensors = {f"{PART}{key}": tensor for key, tensor in tensors.items()}
    heads = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    last = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads)) + OUTPUTS
    for key in tensors.keys() & own.keys():
        if key.startswith(last) and tensors[key].shape != own[key].shape:
            tensors[key] = own[key]
    tensors = resized(model, tensors, path)
    fill(model, tensors, f"{path} is a checkpoint of another network than {type(model).__name__} as asked for")
    return meta


def _file(path: str | Path) -> Path:
    """Return the file of weights that a name, a folder or a card stands for, see `load_network`."""
    path = located(path)
    if path.is_dir():
        other = path / PICKLED
        return other if other.is_file() and not (path / WEIGHTS).is_file() else path / WEIGHTS
    return path.with_suffix(".safetensors") if path.suffix == ".json" else path


def _card_beside(path: Path) -> ModelCard | None:
    """Return the card of the weights in ``path`` if there is one, checked against them."""
    if path.suffix != ".safetensors" or not card_of(path).is_file():
        return None
    card = read_card(card_of(path))
    card.check(path, sha256=sha256_of(path))
    return card


def _whole(tensors: dict[str, Tensor], file: WeightsFile) -> dict[str, Tensor]:
    """Return ``tensors`` with those of the backbone of which the file holds only what differs."""
    return completed(tensors, file.backbone["name"], file.backbone["sha256"]) if file.backbone else tensors


def _stored(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the number of parameters of the network, and the dtype in which ``tensors`` hold them."""
    held = [tensors[name].dtype for name, _ in model.named_parameters() if name in tensors]
    dtypes = [str(dtype).removeprefix("torch.") for dtype in held] or ["float32"]
    return {"parameters": sum(parameter.numel() for parameter in model.parameters()), "dtype": dtypes[0]}


def _meta(path: Path, file: WeightsFile) -> NetworkMeta:
    """Return the metadata of the network whose weights are in ``file``, as this library or timm wrote it."""
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
