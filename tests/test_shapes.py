"""The shapes in the signatures of `functional`, `nn` and `explain`: all are there, and what they say is checked.

The tests against references run with them checked, see the fixture ``shapes``; here is that the check would notice.
"""

from __future__ import annotations

from typing import Any, get_args

import pytest
import timm
import torch
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from foveate import functional as FA
from foveate.nn import (
    AttentionAugmentedConv2d,
    ExpAttConv2d,
    ExplicitAttention2d,
    GatedAttention,
    GlobalSelfAttention2d,
    PositionwiseAttention2d,
    RectangularAttention2d,
)
from tests.shapes import checked, checked_shapes, public_functions, public_methods, resolved

FUNCTIONS = public_functions()
METHODS = {f"{kind.__name__}.{name}": method for (kind, name), method in public_methods().items()}

Q, T = torch.randn(2, 3, 5, 7, 4), torch.randn(9, 4)
SIMILARITY, RECTANGLE = torch.tensor([[0.1, 0.2, 0.3, 1.1]] * 2), torch.tensor([[0.1, 0.2, 0.5, 0.4, 0.3]] * 2)
NETWORK = timm.create_model("cram_resnet_tiny")
WRONG: dict[str, tuple[Any, ...]] = {
    "augmented_attention_map": (Q, Q[:, :2], T, T),
    "augmented_attention": (Q, Q, Q[..., :5, :], T, T),
    "axial_positional_map": (Q[0], T, 0),
    "content_attention": (Q, Q, Q[:, :1]),
    "content_attention_column": (Q, Q[:, :, 1:], 0, 0),
    "explicit_attention": (Q, torch.tensor(1.0)),
    "global_positional_map": (Q, T, T[:, :3]),
    "rectangle_map": (RECTANGLE[:, :4], 5, 7),
    "rectangle_distance": (RECTANGLE, RECTANGLE[:1]),
    "relative_vectors": (T[0],),
    "transform_points": (torch.randn(2, 5, 3), SIMILARITY),
    "compose_similarities": (SIMILARITY, SIMILARITY[:1]),
    "positionwise_map": (torch.randn(2, 3, 5, 7),),
    "saliency": (NETWORK, torch.randn(3, 32, 32)),
    "gradient_shares": (NETWORK, torch.randn(2, 3, 32, 32), torch.tensor([1])),
}
MODULES = [
    ExplicitAttention2d(6, 8, stride=2),
    ExpAttConv2d(6, 10),
    GlobalSelfAttention2d(6, 8, num_heads=2, feat_size=(5, 7), stride=2),
    AttentionAugmentedConv2d(6, 16, num_heads=1, feat_size=(5, 7), downsample=True),
    RectangularAttention2d(6),
    PositionwiseAttention2d(6),
]


def plain_tensors(annotation: Any) -> bool:
    """Tell whether an annotation says ``Tensor`` without a shape."""
    return annotation is Tensor or any(map(plain_tensors, get_args(annotation)))


@pytest.mark.parametrize("name", [*FUNCTIONS, *METHODS])
def test_every_tensor_has_a_shape(name: str) -> None:
    annotations = resolved({**FUNCTIONS, **METHODS}[name])
    assert [each for each, annotation in annotations.items() if plain_tensors(annotation)] == []


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES, ids=lambda module: type(module).__name__)
def test_shapes_of_modules(module: Any) -> None:
    x = torch.randn(2, 6, 5, 7)
    with checked_shapes():
        out = module(x)
        module.attention_map(x)
        if not isinstance(module, ExpAttConv2d):
            assert module.forward_by_maps(x).shape == out.shape
            assert module.forward_without(x, (*module.parts, "attention")[0]).shape == out.shape
        if isinstance(module, GatedAttention):
            module.equivariance_loss(x, x, SIMILARITY)
        with pytest.raises((TypeCheckError, ValueError)):
            module(x[0])


@pytest.mark.parametrize("name", WRONG)
def test_wrong_shapes_are_refused(name: str) -> None:
    with pytest.raises((TypeCheckError, ValueError, RuntimeError)):
        checked(FUNCTIONS[name])(*WRONG[name])


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("return", Float[Tensor, "batch heads height*width"]),
        ("return", Float[Tensor, "batch heads width height"]),
        ("query", Float[Tensor, "batch heads width width dim"]),
    ],
)
def test_a_wrong_annotation_is_caught(name: str, wrong: Any) -> None:
    right = resolved(FA.content_attention_map)
    assert checked(FA.content_attention_map, right)(Q, Q).shape == (2, 3, 35, 35)
    with pytest.raises(TypeCheckError):
        checked(FA.content_attention_map, {**right, name: wrong})(Q, Q)


def test_the_functions_are_themselves_again() -> None:
    with checked_shapes():
        assert FA.warp is not FUNCTIONS["warp"]
    assert FA.warp is FUNCTIONS["warp"]
    assert vars(GatedAttention)["forward"] is METHODS["GatedAttention.forward"]
