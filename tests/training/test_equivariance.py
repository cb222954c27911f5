"""The equivariance term against plain loops, and training with it, interrupted and not."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import timm
import torch
from scipy.linalg import sqrtm
from tests.training.gated import Gated
from torch import Tensor, nn

from foveate import functional as FA
from foveate.models.dense import Segmenter
from foveate.nn import GlobalSelfAttention2d, PositionwiseAttention2d, RectangularAttention2d
from foveate.tasks import Classification
from foveate.training import Equivariance, Recipe, TrainingModule
from foveate.training.equivariance import check_gates, in_frame

TEN_CLASSES = list(map(str, range(10)))


def images(size: int = 4, height: int = 10, width: int = 14) -> Tensor:
    return torch.randn(size, 3, height, width, generator=torch.Generator().manual_seed(1))


def carried(x: float, y: float, numbers: list[float], height: int, width: int) -> tuple[float, float]:
    """Turn and enlarge in pixels, then shift."""
    tx, ty, angle, factor = numbers
    pixel_x, pixel_y = x * width / 2, y * height / 2
    turned_x = factor * (math.cos(angle) * pixel_x - math.sin(angle) * pixel_y)
    turned_y = factor * (math.sin(angle) * pixel_x + math.cos(angle) * pixel_y)
    return turned_x * 2 / width + tx, turned_y * 2 / height + ty


def half_axes(rectangle: list[float]) -> np.ndarray:
    _, _, sx, sy, angle = rectangle
    return np.array([[sx * math.cos(angle), -sy * math.sin(angle)], [sx * math.sin(angle), sy * math.cos(angle)]])


def test_the_loss_of_rectangles_is_the_plain_loop() -> None:
    torch.manual_seed(0)
    gate, height, width = RectangularAttention2d(6).double(), 10, 14
    nn.init.normal_(gate.readout.weight, std=2.0)
    nn.init.normal_(gate.readout.bias)
    x, moved_x = torch.randn(2, 9, 6, 5, 7, dtype=torch.float64).unbind()
    draw = torch.Generator().manual_seed(4)
    similarity = FA.random_similarities(9, shift=1.0, rotation=1.0, scale=1.5, generator=draw).double()
    total, counted = 0.0, 0
    rows = zip(gate.rectangle(x).tolist(), gate.rectangle(moved_x).tolist(), similarity.tolist(), strict=True)
    for rectangle, found, numbers in rows:
        centre = np.array(carried(rectangle[0], rectangle[1], numbers, height, width))
        if np.abs(centre).max() > 1:
            continue
        still = [0.0, 0.0, *numbers[2:]]
        axes = np.array([carried(*column, still, height, width) for column in half_axes(rectangle).T]).T
        root, other = (np.real(sqrtm(matrix @ matrix.T)) for matrix in (axes, half_axes(found)))
        total += float(((centre - found[:2]) ** 2).sum() + ((root - other) ** 2).sum())
        counted += 1
    assert 0 < counted < 9
    loss = gate.equivariance_loss(x, moved_x, similarity, aspect=width / height)
    assert loss.item() == pytest.approx(total / counted)
    far = similarity + torch.tensor([5.0, 0, 0, 0])
    nothing = gate.equivariance_loss(x, moved_x, far)  # all centres are carried out of the image
    assert nothing.item() == 0
    nothing.backward()
    assert all(parameter.grad.isfinite().all() for parameter in gate.parameters())


def test_the_loss_of_maps_is_the_plain_loop() -> None:
    torch.manual_seed(0)
    gate, height, width = PositionwiseAttention2d(6).double(), 10, 14
    nn.init.normal_(gate.score.weight, std=2.0)
    x, moved_x = torch.randn(2, 3, 6, 5, 7, dtype=torch.float64).unbind()
    similarity = torch.tensor([[0.3, -0.2, 0.5, 1.2], [0.0, 0.4, -2.0, 0.8], [-0.6, 0, 0, 1.0]], dtype=torch.float64)
    warped = FA.warp(gate.attention_map(x), similarity, aspect=width / height).detach()
    found, total, counted = gate.attention_map(moved_x).detach(), 0.0, 0
    back = FA.invert_similarity(similarity, aspect=width / height).tolist()
    for index, numbers in enumerate(back):
        for i in range(5):
            for j in range(7):
                place = carried((2 * j + 1) / 7 - 1, (2 * i + 1) / 5 - 1, numbers, height, width)
                if max(map(abs, place)) <= 1:
                    total += float(warped[index, 0, i, j] - found[index, 0, i, j]) ** 2
                    counted += 1
    assert 0 < counted < 3 * 35
    loss = gate.equivariance_loss(x, moved_x, similarity, aspect=width / height)
    assert loss.item() == pytest.approx(total / counted)


def test_a_rectangle_that_follows_costs_nothing_and_one_that_stays_what_it_misses() -> None:
    class Following(RectangularAttention2d):
        """A gate whose input is its rectangle."""

        def rectangle(self, x: Tensor) -> Tensor:
            return x

    rectangle = torch.tensor([[0.1, -0.2, 0.4, 0.2, 0.7]], dtype=torch.float64)
    similarity = torch.tensor([[0.2, 0.1, 0.3, 1.2]], dtype=torch.float64)
    for aspect in (1.0, 1.4):
        follows = FA.transform_rectangle(rectangle, similarity, aspect=aspect)
        assert Following(6).equivariance_loss(rectangle, follows, similarity, aspect=aspect).item() < 1e-24
    shift = torch.tensor([[0.3, 0.4, 0, 1]], dtype=torch.float64)
    assert Following(6).equivariance_loss(rectangle, rectangle, shift).item() == pytest.approx(0.3**2 + 0.4**2)
    growth = torch.tensor([[0.0, 0, 0, 1.5]], dtype=torch.float64)
    centred = rectangle * torch.tensor([0, 0, 1, 1, 1])
    expected = 0.25 * (0.4**2 + 0.2**2)
    assert Following(6).equivariance_loss(centred, centred, growth).item() == pytest.approx(expected)


def test_similarities_in_the_frame_of_a_padded_image_move_the_same_pixels() -> None:
    (height, width), (frame_height, frame_width) = size, frame = (10, 14), (16, 24)
    similarity = FA.random_similarities(
        7, shift=1.0, rotation=3.0, scale=1.5, generator=torch.Generator().manual_seed(4)
    )
    similarity = similarity.double()
    framed = in_frame(similarity, size, frame)
    assert in_frame(similarity, size, size) is similarity
    for numbers, found in zip(similarity.tolist(), framed.tolist(), strict=True):
        for x, y in ((0.0, 0.0), (-1.0, 1.0), (0.3, -0.7)):
            moved_x, moved_y = carried(x, y, numbers, height, width)
            place = ((x + 1) * width / frame_width - 1, (y + 1) * height / frame_height - 1)
            expected = ((moved_x + 1) * width / frame_width - 1, (moved_y + 1) * height / frame_height - 1)
            assert carried(*place, found, frame_height, frame_width) == pytest.approx(expected, abs=1e-12)


def test_a_gate_that_follows_costs_nothing_where_the_network_pads_its_images() -> None:
    class Following(RectangularAttention2d):
        """A gate around the center of mass of the first channel."""

        def rectangle(self, x: Tensor) -> Tensor:
            mass = x[:, 0] / x[:, 0].sum((1, 2), keepdim=True)
            height, width = mass.shape[1:]
            places_y, places_x = (torch.arange(side) * 2.0 + 1 for side in (height, width))
            center_y, center_x = (mass.sum(2) @ places_y) / height - 1, (mass.sum(1) @ places_x) / width - 1
            half = torch.full_like(center_x, 0.5)
            return torch.stack([center_x, center_y, half, half, torch.zeros_like(half)], dim=1)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = Following(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.gate(x)

    blob = torch.zeros(2, 3, 20, 28)
    blob[0, :, 8:11, 9:13] = blob[1, :, 9:10, 14:17] = 1.0
    recipe = Recipe(equivariance=1.0, equivariance_shift=0.1, equivariance_rotation=0.0, equivariance_scale=1.0)
    for divisor in (1, 16):
        network = Segmenter(Network(), divisor)
        outputs, term = Equivariance(network, recipe, seed=2)(blob, epoch=0, step=0)
        assert outputs.shape == blob.shape
        assert term.item() < 1e-10


def test_the_term_is_the_mean_over_the_gates_and_classification_stays_what_it_was() -> None:
    network = Gated().train()
    plain = copy.deepcopy(network)
    recipe = Recipe(equivariance=1, equivariance_shift=0.1, equivariance_rotation=40, equivariance_scale=1.3)
    equivariance = Equivariance(network, recipe, seed=7)
    x = images()
    logits, term = equivariance(x, epoch=2, step=3)
    assert torch.equal(logits, plain(x))
    for name, value in plain.state_dict().items():  # running statistics: those of the images alone
        assert torch.equal(value, network.state_dict()[name]), name
    assert all(not module._forward_pre_hooks for module in network.modules())
    assert all(module.track_running_stats for module in network.modules() if isinstance(module, nn.BatchNorm2d))

    similarity = equivariance.draw(4, epoch=2, step=3)
    terms = []
    with torch.no_grad():
        both = [plain.first(batch) for batch in (x, FA.warp(x, similarity))]
        terms.append(plain.rectangular.equivariance_loss(*both, similarity, aspect=1.4))
        both = [plain.second(plain.rectangular(batch)) for batch in both]
        terms.append(plain.positionwise.equivariance_loss(*both, similarity, aspect=1.4))
    assert min(terms) > 1e-4
    assert term.item() == pytest.approx(sum(terms).item() / 2, rel=1e-5)
    term.backward()
    before_the_gates = {name for name, p in network.named_parameters() if p.grad is not None}
    assert before_the_gates == {name for name, _ in network.named_parameters() if not name.startswith("head")}


def test_what_is_drawn_depends_on_seed_epoch_and_step_alone() -> None:
    recipe = Recipe(equivariance=1, equivariance_shift=0.15, equivariance_rotation=90, equivariance_scale=2)
    one, again = (Equivariance(Gated(), recipe, seed=3) for _ in range(2))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    drawn = one.draw(200, epoch=1, step=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(again.draw(200, epoch=1, step=5), drawn)
    others = [one.draw(200, epoch=1, step=6), one.draw(200, epoch=5, step=1)]
    others.append(Equivariance(Gated(), recipe, seed=4).draw(200, epoch=1, step=5))
    assert not any(torch.equal(drawn, other) for other in others)
    limits = torch.tensor([0.3, 0.3, math.pi / 2, math.log(2)])  # a side is 2 in coordinates of [−1, 1]
    reached = torch.cat([drawn[:, :3], drawn[:, 3:].log()], dim=1).abs().amax(0)
    assert (reached <= limits).all()
    assert (reached > 0.9 * limits).all()


def test_networks_without_gates_are_refused() -> None:
    recipe = Recipe(equivariance=0.5)
    for network in (timm.create_model("resnet10t"), nn.Sequential(GlobalSelfAttention2d(8, feat_size=4))):
        with pytest.raises(ValueError, match=r"and \w+ has none; leave equivariance at 0, or use .*cram_resnet_tiny"):
            Equivariance(network, recipe)
        with pytest.raises(ValueError, match="equivariance is asked of gates"):
            TrainingModule(network, recipe, Classification(TEN_CLASSES, label_smoothing=recipe.label_smoothing))
    assert TrainingModule(timm.create_model("resnet10t"), Recipe(), Classification(TEN_CLASSES)).equivariance is None
    assert set(check_gates(Gated())) == {"rectangular", "positionwise"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"equivariance": -1}, "equivariance must be .* at least 0"),
        ({"equivariance": math.nan}, "equivariance must be a finite number"),
        ({"equivariance_shift": 0.6}, "equivariance_shift must be .* at most 0.5"),
        ({"equivariance_rotation": 190}, "equivariance_rotation must be .* at most 180"),
        ({"equivariance_scale": 0.8}, "equivariance_scale must be .* at least 1"),
        ({"equivariance_shift": 0, "equivariance_rotation": 0, "equivariance_scale": 1}, "nothing to follow"),
        ({"compile": True}, "compiled networks skip; leave out compile"),
    ],
    ids=str,
)
def test_a_setting_out_of_its_range_is_named(change: dict[str, Any], message: str) -> None:
    Recipe(equivariance=1).check()
    Recipe(compile=True, equivariance_shift=0).check()
    with pytest.raises(ValueError, match=message):
        Recipe(**{"equivariance": 1, **change}).check()
