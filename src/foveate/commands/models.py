"""``foveate models``: the networks that this library registers with timm."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

import timm
import torch

from foveate.models import registered
from foveate.report.text import columns

__all__ = ["ModelsConfig", "run"]


@dataclass(kw_only=True)
class ModelsConfig:
    """List the networks that foveate registers with timm.

    Attributes:
        filter: Show only names that match this pattern, as in 'gsa_*'.
    """

    filter: str = "*"


def run(config: ModelsConfig) -> list[str]:
    """Print name, family, image size and parameters of the networks that match; return their names.

    Raises:
        ValueError: No name matches.
    """
    names = [name for name in registered() if fnmatch.fnmatchcase(name, config.filter)]
    if not names:
        raise ValueError(
            f"no network matches filter={config.filter!r}; quote a pattern such as 'gsa_*', or one of: "
            + ", ".join(registered())
        )
    rows = [(name, name.partition("_")[0], *_facts(name)) for name in names]
    print(columns(["network", "family", "made for", "parameters (M)"], rows, left=2))
    print("\nParameters with 1000 classes, normalization included. Any image size will do; 'made for' is the default.")
    return names


def _facts(name: str) -> tuple[str, str]:
    """Return image size and parameters of a network, built where it takes no memory."""
    with torch.device("meta"):
        network = timm.create_model(name)
    configuration = timm.get_pretrained_cfg(name)
    assert configuration is not None, name  # every registered network has one
    _, height, width = configuration.input_size
    return f"{height}×{width}", f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.3f}"
