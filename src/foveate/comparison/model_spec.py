"""One network of a comparison, written ``name:key=value,key=value``."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import yaml

from foveate._extras import require

__all__ = ["OF_ONE_NETWORK", "ModelSpec"]

OF_ONE_NETWORK = ("lr", "equivariance", "equivariance_shift", "equivariance_rotation", "equivariance_scale")
"""Settings that one network of a comparison may have for itself: a term of the loss that not every network has, and the
learning rate, which need not suit all of them."""


class ModelSpec(NamedTuple):
    """A network of a comparison."""

    model: str
    model_args: dict[str, Any]
    """Keywords for the network."""
    settings: dict[str, Any]
    """Training settings of this network alone, from `OF_ONE_NETWORK`."""

    @classmethod
    def parse(cls, text: str) -> ModelSpec:
        """Split ``name:key=value,key=value``, the values read as YAML.

        Raises:
            ValueError: It is not of this form.
        """
        name, _, keywords = text.partition(":")
        pairs = re.split(r",(?=\w+=)", keywords) if keywords else []
        load = require("jsonargparse", extra="train").get_loader("yaml")  # the rules of --config: 1e-3 is a number
        try:
            given = {key: load(value) for key, value in (pair.split("=", 1) for pair in pairs)}
        except (ValueError, yaml.YAMLError) as error:
            raise ValueError(
                f"{text!r} is not a network; give name or name:key=value,key=value, as in gsa_resnet26:stem=small"
            ) from error
        settings = {key: given.pop(key) for key in OF_ONE_NETWORK if key in given}
        return cls(name, given, settings)
