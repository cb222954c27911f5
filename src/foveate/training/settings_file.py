"""The settings of a run in its folder, and whether what is asked for now is the same."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from foveate._paths import expanded
from foveate.data.image_data import takes_intensity_range
from foveate.io.reading import without_prefix
from foveate.training.settings import DataConfig, TrainSettings

__all__ = ["CONFIG", "check_unchanged", "read_settings", "to_yaml", "with_data_of_run"]

Config = TypeVar("Config", bound=DataConfig)

CONFIG = "config.yaml"
MEANS = frozenset(
    {
        *("out", "resume", "root", "download", "workers", "device", "max_bad_images", "logger"),
        *("checkpoint_minutes", "checkpoint_updates", "strategy", "jobs"),
    }
)
"""Settings that say where and with which means something is computed, or how much is put up with, not what."""
NEWER = frozenset(
    {
        *("checkpoint_minutes", "checkpoint_updates", "non_finite", "max_skipped", "strategy", "sync_bn"),
        *("intensity_range", "threads", "jobs", "task", "logger"),
        *("decoder", "dice", "detector", "head_args", "img_scale", "freeze"),
        *("warmup_prefix", "cycle_epochs", "cycle_mul", "cycle_decay", "cycle_limit"),
    }
)
"""Settings that saved configurations may lack: what is the default now was the rule then."""


def read_settings(saved: Path, config: TrainSettings) -> dict[str, Any] | None:
    """Return the settings that `to_yaml` wrote to ``saved`` for such a configuration; None if there is no file.

    Raises:
        ValueError: It is another file, or damaged.
    """
    if not saved.exists():
        return None
    try:
        settings = yaml.safe_load(saved.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        settings = None
    fresh = yaml.safe_load(to_yaml(type(config)()))
    defaults = {name: fresh[name] for name in NEWER if name in fresh}
    if not isinstance(settings, dict) or (defaults | settings).keys() != fresh.keys():
        raise ValueError(f"{saved} is damaged, or not of such a run; move it away, or give another `out`")
    return defaults | settings


def with_data_of_run(config: Config, checkpoint: str) -> Config:
    """Return a configuration that opens what a run was trained on, where it does not say what else.

    The run is that of the file or the folder ``checkpoint``. Of the same data its other settings are taken too, as far
    as they are not given: how a set without validation images is divided, what digits are drawn. Of no run, and
    without ``data``, it is the digits.
    """
    path = expanded(without_prefix(checkpoint))
    file = (path if path.is_dir() else path.parent) / CONFIG
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8")) if path.exists() and file.is_file() else {}
    except (yaml.YAMLError, UnicodeDecodeError):
        found = {}
    settings = found if isinstance(found, dict) and isinstance(found.get("data"), str) else {}
    data = config.data or settings.get("data", "digits")
    root = config.root or settings.get("root")
    same = "data" in settings and _same(data, settings["data"], root)
    alike = same or ("data" in settings and _may_be_same(data, settings["data"], root))
    seed = settings.get("data_seed", 0) if alike and config.data_seed is None else config.data_seed or 0
    changes: dict[str, Any] = {"data": data, "data_seed": seed}
    for name in ("data_options", "root", "max_bad_images"):
        if same and not getattr(config, name) and settings.get(name) is not None:
            changes[name] = settings[name]
    return dataclasses.replace(config, **changes)


def _same(one: str, other: str, root: Any) -> bool:
    """Tell whether two names are of the same data: equal, or of the same folder."""
    folders = [expanded(Path(root or "", name)) for name in (one, other)]
    if one == other or not all(map(takes_intensity_range, (one, other))):  # a folder may be called as a named set is
        return one == other
    return all(map(Path.is_dir, folders)) and folders[0].samefile(folders[1])


def _may_be_same(one: str, other: str, root: Any) -> bool:
    """Tell whether ``other``, which leads nowhere from here, may be a folder's name from where the training was."""
    tail, files = Path(other).parts, all(map(takes_intensity_range, (one, other)))
    if not files or Path(other).is_absolute() or expanded(Path(root or "", other)).is_dir():
        return False
    return expanded(Path(root or "", one)).absolute().parts[-len(tail) :] == tail


def check_unchanged(saved: Path, config: TrainSettings, *, but: Iterable[str] = ()) -> None:
    """Raise a `ValueError` if a file that `to_yaml` wrote has other settings than ``config``; none is no hindrance.

    Args:
        saved: The file.
        config: What is asked for now.
        but: Settings that may differ, besides those that say where and with which means something is computed.
    """
    then, now = read_settings(saved, config), yaml.safe_load(to_yaml(config))
    if then is None:
        return
    names = [name for name in now if name not in MEANS.union(but)]
    changed = [f"{name}: {then[name]!r} there, {now[name]!r} now" for name in names if then[name] != now[name]]
    if changed:
        raise ValueError(
            f"{saved.parent} was started with other settings; use those (--config {saved}), give another `out`, or "
            f"delete it:\n  " + "\n  ".join(changed)
        )


def to_yaml(config: TrainSettings) -> str:
    """Return ``config`` as the YAML that ``--config`` takes."""
    return yaml.safe_dump(json.loads(json.dumps(dataclasses.asdict(config))), sort_keys=False, allow_unicode=True)
