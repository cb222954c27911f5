"""A mechanism of a user's own, a function and a class, works wherever the library's own do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from timm.models import register_model
from torch import Tensor, nn

import foveate
from foveate.benchmark import network_cost
from foveate.explain import attention_off, gradient_shares, overlay, parts_of, saliency
from foveate.models.inspection import attention_modules
from foveate.nn import GatedAttention, PairwiseAttention

IMAGES = torch.rand(3, 3, 32, 40, generator=torch.Generator().manual_seed(0))


def energy_map(x: Tensor, weight: Tensor) -> Tensor:
    """Return ``σ(w · mean of squares)``, ``(B, 1, H, W)``."""
    return (weight * x.square().mean(1, keepdim=True)).sigmoid()


class EnergyAttention2d(GatedAttention):
    title = "Energy: where features are strong"

    def __init__(self, dim: int, *, device: object = None, dtype: object = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, device=device, dtype=dtype))  # type: ignore[call-overload]

    def attention_map(self, x: Tensor) -> Tensor:
        return energy_map(x, self.weight)


class SimilarityAttention2d(PairwiseAttention):
    """Each position takes from those that are like it: softmax of products of features."""

    def __init__(self, dim: int, *, device: object = None, dtype: object = None) -> None:
        super().__init__()
        self.value = nn.Conv2d(dim, dim, 1, bias=False, device=device, dtype=dtype)  # type: ignore[arg-type]

    def attention_map(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        return (flat.transpose(1, 2) @ flat / flat.shape[1]).softmax(-1).unsqueeze(1)

    def values(self, x: Tensor) -> Tensor:
        return self.value(x).flatten(2).transpose(1, 2).unsqueeze(1)

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.attention_map(x)[:, 0] @ self.values(x)[:, 0]).transpose(1, 2).reshape(x.shape)


@register_model
def energy_resnet_tiny(pretrained: bool = False, **kwargs: object) -> nn.Module:
    return foveate.insert(timm.create_model("conv_resnet_tiny", **kwargs), EnergyAttention2d, at=-2)


@pytest.fixture(params=[EnergyAttention2d, SimilarityAttention2d])
def network(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return foveate.insert(timm.create_model("conv_resnet_tiny", num_classes=5), request.param, at=-2).eval()


def test_it_is_explained_scored_and_drawn(network: nn.Module) -> None:
    explanation = foveate.explain(network, IMAGES)
    (record,) = explanation.records
    assert record.name == "layer3.attention"
    assert record.title
    assert record.map.shape == (3, 8, 10)
    assert saliency(network, IMAGES).map.shape == (3, 32, 40)
    module = network.layer3.attention
    seen: list[Tensor] = []
    module.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    network(IMAGES)
    expected = module.attention_map(seen[0])
    if module.is_gate:
        assert torch.allclose(record.map, expected[:, 0], atol=1e-6)
    else:
        row = record.attention_from((0, 0))[:, 0].flatten(1)
        assert torch.allclose(row, expected[:, 0, 0], atol=1e-6)
    from PIL import Image

    picture = overlay(Image.new("RGB", (40, 32)), record, 0)
    assert picture.size[0] % 40 == 0


def test_it_is_counted_and_switched_off(network: nn.Module) -> None:
    cost = network_cost(network, (3, 32, 40))
    assert [stage.stage for stage in cost.attention] == ["layer3"]
    module = network.layer3.attention
    assert parts_of(network) == (["attention"] if module.is_gate else [])
    if module.is_gate:
        plain = network(IMAGES)
        with attention_off(network):
            assert not torch.equal(network(IMAGES), plain)
    assert 0 <= gradient_shares(network, IMAGES, torch.tensor([0, 1, 4]))["layer3.attention"] <= 1


@pytest.mark.slow
def test_it_is_trained_by_the_commands_and_shown_on_the_page(tmp_path: Path) -> None:
    """From the command line to the page; the network is known by the name under which the user registered it."""
    from foveate.cli import main
    from foveate.demo import render
    from foveate.demo.inference import load_shown, look
    from foveate.demo.samples import ShownImage

    run = tmp_path / "run"
    options = "{size: 16, clutter: 1, length: 32, val_length: 16, test_length: 16}"
    data = ["--data=digits", f"--data_options={options}", "--epochs=1", "--batch_size=16", "--device=cpu"]
    assert main(["train", "energy_resnet_tiny", *data, f"--out={run}", "--equivariance=0.5"]) in (0, None)
    assert main(["score", str(run), "--images=8", "--faithful_images=0", f"--out={tmp_path / 'scores.json'}"]) in (
        0,
        None,
    )
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert "EnergyAttention2d" in json.dumps(scores)
    assert main(["export", str(run), "--to=torch", f"--out={tmp_path / 'exported'}"]) in (0, None)
    (shown,) = load_shown([str(run)])
    from PIL import Image

    finding = look(shown, ShownImage(Image.new("RGB", (16, 16), "grey")))
    assert render.mechanism(finding).name == EnergyAttention2d.title
    assert list(attention_modules(shown.network.network)) == ["layer3.attention"]
