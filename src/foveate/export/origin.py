"""Origin of weights for their model card, from the run that made them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from foveate.io.card import card_of, read_card
from foveate.io.checkpoint import WEIGHTS
from foveate.io.environment import environment
from foveate.io.files import read_json
from foveate.io.reading import located
from foveate.training import TrainConfig
from foveate.training.run_folder import RESULT
from foveate.training.settings_file import CONFIG, MEANS
from foveate.training.train_state import BEST, LAST, PREVIOUS

__all__ = ["origin"]

ABOUT = ("license", "data", "recipe", "test", "versions")
IN_THE_NETWORK = {"model", "model_args", "img_size", "crop_pct", "interpolation"}
IN_THE_DATA = {"data", "data_options", "data_seed"}
RECIPE = {field.name for field in dataclasses.fields(TrainConfig)} - MEANS - IN_THE_NETWORK - IN_THE_DATA
"""Settings of a training, without those elsewhere on the card, and without folders."""
OF_A_RUN = {WEIGHTS, LAST, PREVIOUS, BEST}


def origin(checkpoint: str | Path) -> dict[str, Any]:
    """Return the fields ``license``, ``data``, ``recipe``, ``test`` and ``versions`` of a `ModelCard`.

    They are those of the card beside the weights if there is one, else of ``config.yaml`` and ``result.json`` of the
    run, if they exist and the checkpoint has a name of a run's. The figures of ``test`` are those of the final weights,
    and are left out for a ``.ckpt``. A `ValueError` names one of these files that is damaged.
    """
    checkpoint = located(checkpoint)
    weights = checkpoint / WEIGHTS if checkpoint.is_dir() else checkpoint.with_suffix(".safetensors")
    if checkpoint.suffix != ".ckpt" and card_of(weights).is_file():
        card = read_card(card_of(weights))
        return {name: getattr(card, name) for name in ABOUT}
    if not checkpoint.is_dir() and checkpoint.name not in OF_A_RUN:
        return {"versions": environment(torch.device("cpu"))}
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    result = _mapping(folder / RESULT, read_json)
    settings = result.get("config") or _mapping(folder / CONFIG, _read_yaml)
    tested = checkpoint.is_dir() or checkpoint.name == WEIGHTS
    return {
        "data": _data(settings, result) if settings else {},
        "recipe": {name: _portable(value) for name, value in settings.items() if name in RECIPE},
        "test": _test(result) if tested and result else {},
        "versions": result.get("environment") or environment(torch.device("cpu")),
    }


def _data(settings: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    names = {"name": "data", "options": "data_options", "seed": "data_seed"}
    known = {name: _portable(settings.get(setting)) for name, setting in names.items()}
    sizes = result.get("data", {}).get("images")
    return known | ({"sizes": sizes} if sizes else {})


def _test(result: Mapping[str, Any]) -> dict[str, Any]:
    metrics = result.get("metrics", {})
    return {
        "split": result.get("split"),
        "images": result.get("images"),
        **{name: value for name, value in metrics.items() if not isinstance(value, list)},
    }


def _portable(value: Any) -> Any:
    """Return the last part of an absolute path, whose folder means nothing on another machine."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _mapping(path: Path, read: Any) -> Mapping[str, Any]:
    content = read(path) if path.is_file() else {}
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} is not of a run: it holds no keys with values; move it away")
    return content


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}; move it away") from error
