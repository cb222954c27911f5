"""Networks that look at values on their way, keep tensors of their own, or are called in other ways."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torchvision.models import resnet18
from torchvision.transforms import Normalize

import foveate
from foveate.explain import gradient_shares
from foveate.models.inspection import dry_run, private_copy
from foveate.nn import GlobalSelfAttention2d, RectangularAttention2d

IMAGE = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


class Centered(nn.Module):
    """Keeps a constant as a plain tensor, and leaves out images by their values."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.body = torch.zeros(1, 3, 1, 1), resnet18()

    def forward(self, x: Tensor) -> Tensor:
        x = x - self.mean
        return self.body(x[x.flatten(1).sum(1) > -1e9])


def normalizing() -> nn.Module:
    return nn.Sequential(Normalize([0.5] * 3, [0.25] * 3), resnet18())  # which looks whether a deviation is 0


@pytest.mark.parametrize(("make", "body"), [(Centered, "body"), (normalizing, "1")])
@pytest.mark.parametrize("take", [foveate.insert, foveate.replace])
def test_networks_that_look_at_values(take: Callable, make: Callable[[], nn.Module], body: str) -> None:
    module = RectangularAttention2d if take is foveate.insert else GlobalSelfAttention2d
    network = take(make(), module, at=f"{body}.layer4")
    assert any(isinstance(one, module) for one in network.get_submodule(body).layer4.modules())
    assert network(IMAGE.repeat(2, 1, 1, 1)).isfinite().all()


def test_a_size_that_is_not_taken_is_refused_by_its_reason() -> None:
    with pytest.raises(ValueError, match="3×32×32"):
        dry_run(timm.create_model("vit_tiny_patch16_224"), (3, 32, 32), lambda twin, image: twin(image))


def test_pruned_networks_get_attention() -> None:
    network = resnet18()
    prune.l1_unstructured(network.conv1, "weight", amount=0.3)  # the weight is then no parameter, and has a history
    foveate.insert(network, RectangularAttention2d, at="layer3")
    assert network.conv1.weight.eq(0).float().mean() == pytest.approx(0.3, abs=1e-3)


def test_checkpoints_of_gradients_are_no_hindrance() -> None:
    network = timm.create_model("resnet18", num_classes=3)
    network.set_grad_checkpointing()
    assert len(foveate.explain(network, IMAGE, method="gradcam").records) == 1
    foveate.insert(network, RectangularAttention2d, at=-2)
    assert network.grad_checkpointing
    assert len(foveate.explain(network, IMAGE).records) == 1


def test_looking_merges_no_weights() -> None:
    class Merging(nn.Linear):
        """As adapters of others do, by a flag of its own."""

        merged = False

        def train(self, mode: bool = True) -> Merging:
            if not mode and not self.merged:
                self.weight.data += 1.0
                self.merged = True
            return super().train(mode)

    network = timm.create_model("cram_resnet_tiny", num_classes=3).train()
    network.fc = Merging(network.fc.in_features, 3)
    before = network.fc.weight.clone()
    foveate.explain(network, IMAGE)
    assert torch.equal(network.fc.weight, before)
    assert network.fc.training


def test_a_compiled_block_with_attention_is_copied_whole() -> None:
    network = foveate.insert(resnet18(), RectangularAttention2d, at="layer3.0").eval()
    network.layer3[0].compile()
    twin = copy.deepcopy(network)
    assert twin.layer3[0]._compiled_call_impl is None
    with torch.no_grad():
        twin.layer3[0].conv1.weight.zero_()
    assert not torch.equal(twin(IMAGE), pickle.loads(pickle.dumps(network))(IMAGE))


def test_timm_saves_a_network_at_the_size_that_its_tables_are_for(tmp_path: Path) -> None:
    network = timm.create_model("gsa_resnet_tiny", img_size=64)
    network.set_input_size(96)
    timm.models.save_for_hf(network, tmp_path, model_config={"num_classes": 1000})
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    for mine, other in zip(network.state_dict().values(), loaded.state_dict().values(), strict=True):
        assert torch.equal(mine, other)
    assert foveate.load(tmp_path).network.layer1[0].conv2.feat_size == (96, 96)


def test_parameters_in_lists_stay_parameters() -> None:
    network = timm.create_model("cram_resnet_tiny", num_classes=3)
    wanted = gradient_shares(network, IMAGE, torch.tensor([1]))
    network.to_train = list(network.fc.parameters())
    assert gradient_shares(network, IMAGE, torch.tensor([1])) == wanted
    assert private_copy(network).fc.weight.data_ptr() == network.fc.weight.data_ptr()


def test_wrong_options_are_not_said_of_the_image() -> None:
    with pytest.raises(ValueError, match="num_heads") as error:
        foveate.replace(resnet18(), GlobalSelfAttention2d, at="layer4", num_heads=7)
    assert "does not take an image" not in str(error.value)
