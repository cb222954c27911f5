"""Networks that other code trained: built by timm's name, and fed as timm's configuration says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
from timm.data import resolve_data_config
from torch import nn

from foveate import _checks
from foveate.io.card import NetworkMeta
from foveate.io.files import read_json
from foveate.models.building import GIVEN, build_network

__all__ = ["HUB_CONFIG", "build_described", "meta_of_hub", "meta_of_script"]

FIT_OF = {"center": "crop", "squash": "squash"}
"""How images are fitted in timm's words and in ours; timm's ``border`` is not known here."""
SCRIPT_OPTIONS = {"global_pool": "gp", "bn_eps": "bn_eps"}
"""Keywords of networks, and what timm's training script calls them."""
HUB_CONFIG = "config.json"
"""Name of the description of the network in a folder that timm writes."""


def build_described(
    name: str,
    prepared: Mapping[str, Any],
    *,
    num_classes: int,
    img_size: int | Sequence[int],
    classes: Sequence[str] | None = None,
    in_chans: int = 3,
    pretrained: bool = False,
    model_args: Mapping[str, Any] | None = None,
) -> tuple[nn.Module, NetworkMeta]:
    """Build a network as `build_network` does; return it and its `NetworkMeta`, with numbers for unnamed ``classes``.

    ``prepared`` is a result of `timm.data.resolve_data_config`: ``mean``, ``std``, ``crop_pct``, ``interpolation``,
    ``crop_mode``.
    """
    mode = _checks.one_of("crop_mode", prepared.get("crop_mode") or "center", tuple(FIT_OF))
    size = _checks.pair("img_size", img_size)
    network, kwargs = build_network(
        name,
        num_classes=_checks.integer("num_classes", num_classes),
        in_chans=in_chans,
        img_size=size,
        pretrained=pretrained,
        model_args=model_args,
    )
    names = [str(index) for index in range(num_classes)] if classes is None else list(classes)
    preparation = {name: prepared[name] for name in ("crop_pct", "interpolation")}
    preparation |= {name: list(prepared[name]) for name in ("mean", "std")} | {"fit": FIT_OF[mode]}
    return network, NetworkMeta(model=name, kwargs=kwargs, classes=names, img_size=size, **preparation)


def meta_of_script(arguments: Mapping[str, Any]) -> NetworkMeta:
    """Return the metadata that follow from the arguments of timm's training script; classes are numbered."""
    name = arguments["model"]
    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    prepared = resolve_data_config(dict(arguments), pretrained_cfg=config.to_dict() if config else {})
    channels, *size = prepared["input_size"]
    own = {option: arguments.get(argument) for option, argument in SCRIPT_OPTIONS.items()}
    own = {option: value for option, value in own.items() if value is not None}
    return build_described(
        name,
        prepared,
        num_classes=arguments.get("num_classes") or (config.num_classes if config else 0),
        img_size=size,
        in_chans=channels,
        model_args=own | dict(arguments.get("model_kwargs") or {}),
    )[1]


def meta_of_hub(weights: Path) -> NetworkMeta | None:
    """Return the metadata in the `HUB_CONFIG` beside ``weights``, as `timm.models.save_for_hf` writes it, if any."""
    path = weights.with_name(HUB_CONFIG)
    config = read_json(path) if path.is_file() else {}
    if not isinstance(config, dict) or "architecture" not in config:
        return None
    own = config.get("pretrained_cfg", config)
    prepared = resolve_data_config({}, pretrained_cfg=own)
    channels, *size = prepared["input_size"]
    options = {name: value for name, value in config.get("model_args", {}).items() if name not in GIVEN}
    number, classes = (config.get(name, own.get(name)) for name in ("num_classes", "label_names"))
    classes = own.get("labels") if classes is None else classes  # as timm called them once
    channels = config.get("model_args", {}).get("in_chans", channels)  # beside a size of the published weights
    if isinstance(classes, Mapping):  # as timm allows: of some classes, by their numbers
        classes = [classes.get(str(index), str(index)) for index in range(number)]
    return build_described(
        config["architecture"],
        prepared,
        num_classes=number,
        img_size=options.pop("img_size", size),
        classes=classes,
        in_chans=channels,
        model_args=options,
    )[1]
