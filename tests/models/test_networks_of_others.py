"""Networks that look at values on their way, keep tensors of their own, or are called in other ways."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torchvision.models import resnet18
from torchvision.transforms import Normalize

import foveate
from foveate.benchmark import network_cost
from foveate.explain import gradient_shares
from foveate.models.dense.detector import build_detector
from foveate.models.inspection import attention_modules, dry_run, private_copy
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


class Merging(nn.Linear):
    """Merges weights as adapters of others do, by a flag of its own."""

    merged = False

    def train(self, mode: bool = True) -> Merging:
        if not mode and not self.merged:
            self.weight.data += 1.0
            self.merged = True
        return super().train(mode)


class Hesitating(Merging):
    """Looks at values besides, so that it cannot be tried without."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if x.sum() > -1e9 else x


def replaced(network: nn.Module) -> None:
    foveate.replace(network, GlobalSelfAttention2d, at="layer4", img_size=32, num_heads=4)


def counted(network: nn.Module) -> None:
    detector = build_detector("conv_resnet_tiny", {}, num_classes=3, img_size=(64, 64))
    detector.merging = network.layer1[0].merging
    network_cost(detector, (3, 64, 64))


@pytest.mark.parametrize("look", [lambda network: foveate.explain(network, IMAGE), replaced, counted])
def test_looking_merges_no_weights(look: Callable[[nn.Module], object]) -> None:
    network = timm.create_model("cram_resnet_tiny", num_classes=3).train()
    network.layer1[0].merging = Hesitating(8, 8)

    def merge(module: Any, _: Any, output: Tensor) -> Tensor:
        return output + 0 * module.merging(output[0, :1, :8, 0]).sum()

    network.layer1[0].register_forward_hook(merge)
    before = network.layer1[0].merging.weight.clone()
    look(network)
    assert torch.equal(network.layer1[0].merging.weight, before)
    assert network.layer1[0].merging.training


def test_tables_are_resized_behind_a_stem_that_moves_pixels_to_channels() -> None:
    network = foveate.replace(timm.create_model("tresnet_m"), GlobalSelfAttention2d, at=-1)
    assert {module.feat_size for module in attention_modules(network).values()} == {(14, 14), (7, 7)}
    foveate.resize_relative_tables(network, 448)
    assert {module.feat_size for module in attention_modules(network).values()} == {(28, 28), (14, 14)}


def test_tables_beside_another_network_are_resized() -> None:
    class Distilled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.teacher, self.student = resnet18(), timm.create_model("gsa_resnet_tiny", img_size=32)

        def forward(self, batch: dict[str, Tensor]) -> Tensor:
            return self.student(batch["images"]) - self.teacher(batch["images"])

    both = foveate.resize_relative_tables(Distilled(), 64)
    assert both.student.layer1[0].conv2.feat_size == (64, 64)


class Wrapped(nn.Module):
    """Attention of a user's, around ours."""

    def __init__(self, dim: int, dim_out: int, *, stride: int, feat_size: tuple[int, int], **dd: Any) -> None:
        super().__init__()
        self.gsa = GlobalSelfAttention2d(dim, dim_out, feat_size=feat_size, stride=stride, **dd)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gsa(x)


class Sized(nn.Conv2d):
    """A convolution that has to know the size of its map."""

    def __init__(self, dim: int, dim_out: int, *, stride: int, feat_size: tuple[int, int], **dd: Any) -> None:
        super().__init__(dim, dim_out, 3, stride, 1, **dd)
        self.feat_size = feat_size

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2:] == self.feat_size
        return super().forward(x)


def test_attention_of_others_is_told_the_size_of_its_map() -> None:
    network = foveate.replace(resnet18(), Wrapped, at="layer4", img_size=64)
    assert [module.feat_size for module in attention_modules(network).values()] == [(4, 4), (2, 2), (2, 2), (2, 2)]
    network = foveate.replace(resnet18(), Sized, at="layer4", img_size=64)
    sizes = [module.feat_size for module in network.modules() if isinstance(module, Sized)]
    assert sizes == [(4, 4), (2, 2), (2, 2), (2, 2)]


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
