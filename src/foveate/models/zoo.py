"""The networks of the three papers and of their baselines, registered with timm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import timm
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model, resolve_pretrained_cfg
from torch import Tensor, nn

from foveate._checks import one_of
from foveate.models.attention_net import (
    AttentionResNet,
    Replace,
    augmented,
    convolution,
    explicit,
    global_self,
)
from foveate.models.insertion import insert
from foveate.models.packaged import PACKAGED, completed, packaged_weights
from foveate.models.shipped import TRAININGS, shipped
from foveate.models.stem import MOBILE, RESNET, timm_output_stride, use_small_stem
from foveate.models.tables import checkpoint_filter_fn
from foveate.nn import PositionwiseAttention2d, RectangularAttention2d

__all__: list[str] = []

DEPTHS: dict[str, dict[str, Any]] = {
    "resnet26": {"layers": (1, 2, 4, 1)},
    "resnet38": {"layers": (2, 3, 5, 2)},
    "resnet50": {"layers": (3, 4, 6, 3)},
    "resnet101": {"layers": (3, 4, 23, 3)},
    "resnet152": {"layers": (3, 8, 36, 3)},
}
"""Blocks of each stage."""

TINY: dict[str, Any] = {
    "layers": (1, 1, 1, 1),
    "channels": (8, 24, 48, 96),
    "stem_type": "deep",  # the way to a narrow stem in timm; stem="small" makes one convolution of it
    "stem_width": 8,
    "stem": "small",
    "img_size": 32,
}
"""Network that learns cluttered digits in one to two minutes on two CPU cores."""


@dataclass(frozen=True)
class Family:
    """Replacement of the 3×3 convolutions, and which of its options a network passes on."""

    replace: Replace
    options: tuple[str, ...] = ()
    tiny: Mapping[str, Any] = field(default_factory=dict)
    """Options of the tiny network, which is too narrow for 8 heads."""


FAMILIES = {
    "conv": Family(convolution),
    "expatt": Family(explicit, ("stages", "half_resolution", "kernel", "radius", "value_ratio")),
    "gsa": Family(global_self, ("stages", "num_heads", "part", "normalize_queries", "axial_content"), {"num_heads": 1}),
    "aa": Family(
        augmented,
        ("stages", "half_resolution", "num_heads", "key_ratio", "value_ratio", "min_dim_key"),
        {"num_heads": 2},
    ),
}

INSERTED: dict[str, type[nn.Module]] = {
    "cram": RectangularAttention2d,
    "positionwise": PositionwiseAttention2d,
}
"""Attention inserted behind the last stage but one."""

INSERTED_IN = {
    "resnet_tiny": "conv_resnet_tiny",
    "resnet26": "conv_resnet26",
    "resnet50": "resnet50",
    "efficientnet_b0": "efficientnet_b0",
    "mobilenetv3_large_100": "mobilenetv3_large_100",
    "tf_efficientnet_lite0": "tf_efficientnet_lite0",
}
"""The networks with inserted attention, and the timm model that each is made from."""

FETCHING = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
"""Keywords of timm for the source of weights."""


def registered() -> list[str]:
    """Return the names of the networks that this library registers with timm.

    Examples:
        >>> "gsa_resnet50" in foveate.models.registered()
        True
    """
    return list(__all__)


def _network(family: Family, variant: str, defaults: Mapping[str, Any]) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        attention = {name: kwargs.pop(name) for name in family.options if name in kwargs}
        return build_model_with_cfg(
            AttentionResNet,
            variant,
            pretrained,
            pretrained_filter_fn=checkpoint_filter_fn,
            replace=family.replace,
            attention={**(family.tiny if variant.endswith("_tiny") else {}), **attention},
            **{**defaults, **kwargs},
        )

    return create


def _with_inserted(attention: type[nn.Module], base: str, name: str) -> Callable[..., nn.Module]:
    def create(
        pretrained: bool = False,
        *,
        at: int | str | Sequence[int | str] = -2,  # one place, or several with a module each
        stem: str | None = None,
        img_size: int | tuple[int, int] | None = None,  # accepted by all networks; unused
        **kwargs: Any,
    ) -> nn.Module:
        small = one_of("stem", stem or "imagenet", ("imagenet", "small")) == "small"
        source = {key: kwargs.pop(key) for key in FETCHING if key in kwargs}
        chosen = source.get("pretrained_cfg")
        # Weights of the network with its attention, not of the one without; so are those of a folder or a hub.
        trained = TRAININGS[chosen] if isinstance(chosen, str) and chosen in TRAININGS else None
        options: dict[str, Any] = {} if trained is None else dict(trained.options)
        options |= {name: kwargs.pop(name) for name in ("sharpness", "hidden") if name in kwargs}
        own = trained is not None or (isinstance(chosen, Mapping) and chosen.get("source") in ("local-dir", "hf-hub"))
        own = own or (pretrained and _holds_attention(chosen, source.get("pretrained_cfg_overlay")))
        if pretrained and small and not own:
            raise ValueError(
                "stem='small' has no pretrained weights; pass pretrained=False, or leave the stem as it is"
            )
        configuration = resolve_pretrained_cfg(
            name if own else base, chosen, source.get("pretrained_cfg_overlay")
        ).to_dict()
        if pretrained and not own and base in PACKAGED and not any(source.values()):  # a tag asks for timm's
            source["pretrained_cfg_overlay"] = {"state_dict": packaged_weights(base)}
        if stem is not None and base.endswith("_tiny"):  # these have both stems of their own
            kwargs["stem"] = stem

        def build(**kwargs: Any) -> nn.Module:
            if small and not base.endswith("_tiny") and "output_stride" in kwargs:
                factor = RESNET if "resnet" in base else MOBILE
                kwargs["output_stride"] = timm_output_stride(kwargs["output_stride"], factor)
            if own:
                model = timm.create_model(base, **kwargs)
            else:
                model = timm.create_model(base, pretrained=pretrained, **source, **kwargs)
            if small and not base.endswith("_tiny"):
                use_small_stem(model)
            for place in at if isinstance(at, list | tuple) and at else (at,):
                insert(model, attention, place, **options)
            return model

        network = build_model_with_cfg(
            build,
            name,
            pretrained and own,
            # What is saved under this name must be built under it again.
            pretrained_cfg={**configuration, "architecture": name},
            pretrained_filter_fn=_completing(None if trained is None else trained.backbone),
            feature_cfg={"feature_cls": "getter"},
            cache_dir=source.get("cache_dir"),
            **kwargs,
        )
        # Those of a shipped network as well, so that what timm saves of it can be built again.
        network._model_args = {**getattr(network, "_model_args", {}), **options}  # type: ignore[assignment]
        return network

    return create


def _holds_attention(chosen: object, overlay: Mapping[str, Any] | None) -> bool:
    """Tell whether the weights that a configuration of timm's gives are of a network with its attention."""
    given = {**(chosen if isinstance(chosen, Mapping) else {}), **(overlay or {})}
    weights = given.get("state_dict")
    if not weights and given.get("file"):
        weights = timm.models.load_state_dict(given["file"], weights_only=True)
    return any(".attention." in f".{name}" for name in weights or ())


def _completing(backbone: str | None) -> Callable[..., dict[str, Tensor]]:
    """Return timm's filter for files of weights, which may hold only what differs from those of ``backbone``."""

    def whole(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        return checkpoint_filter_fn(state if backbone is None else completed(state, backbone), model)

    return whole


def _configuration(input_size: tuple[int, int, int] = (3, 224, 224)) -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": input_size,
        "pool_size": (4, 4) if input_size[1] == 32 else (7, 7),
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "conv1",
        "classifier": "fc",
        "license": "apache-2.0",
    }


def _all_networks() -> Iterator[tuple[str, dict[str, Any], Callable[..., nn.Module]]]:
    """Yield the name, the configuration and the constructor of every network."""
    for family_name, family in FAMILIES.items():
        for size, defaults in (("resnet_tiny", TINY), *DEPTHS.items()):
            name = f"{family_name}_{size}"
            side = defaults.get("img_size", 224)
            yield name, _configuration((3, side, side)), _network(family, name, defaults)
    for kind, attention in INSERTED.items():
        for size, base in INSERTED_IN.items():
            # The weights are those of the network that the attention is inserted in.
            configuration = _configuration((3, 32, 32)) if base == "conv_resnet_tiny" else _base_configuration(base)
            yield f"{kind}_{size}", configuration, _with_inserted(attention, base, f"{kind}_{size}")


def _base_configuration(base: str) -> dict[str, Any]:
    if base.startswith("conv_"):
        return _configuration()
    configuration = timm.get_pretrained_cfg(base)
    assert configuration is not None, base
    return configuration.to_dict()


def _register() -> None:
    networks = list(_all_networks())
    untrained = {name: configuration for name, configuration, _ in networks}
    configurations: dict[str, Any] = {
        name: {**untrained[name.partition(".")[0]], **training.configuration, "file": str(file)}
        for tag, training in TRAININGS.items()
        for name, file in shipped(tag).items()
    }
    # Last, and with an asterisk: without a tag, a network is the untrained one.
    configurations |= {f"{name}.*": configuration for name, configuration in untrained.items()}
    # timm reads the configurations from the module of a constructor.
    globals()["default_cfgs"] = generate_default_cfgs(configurations)
    for name, _, create in networks:
        create.__name__ = create.__qualname__ = name
        globals()[name] = register_model(create)


_register()
