"""`foveate.explain`: prediction and maps of one pass, from a network that is left exactly as it was."""

from __future__ import annotations

import gc
import inspect
import sys
from contextlib import nullcontext

import pytest
import timm
import torch
from torch import nn

import foveate
from foveate.explain import Explanation, attention_records, explain
from foveate.nn import PositionwiseAttention2d, RectangularAttention2d
from tests.explain.untouched import Snapshot, lived_in
from tests.interpreters import Interpreter

TINY = ["expatt_resnet_tiny", "gsa_resnet_tiny", "aa_resnet_tiny", "cram_resnet_tiny", "positionwise_resnet_tiny"]


def network(name: str = "cram_resnet_tiny", **kwargs: object) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=7, **kwargs).eval()


@pytest.mark.parametrize("name", TINY)
def test_prediction_and_maps_are_those_of_the_network(name: str) -> None:
    model, images = network(name), torch.randn(3, 3, 24, 33)
    expected = model(images).detach()
    explanation = foveate.explain(model, images)
    assert torch.equal(explanation.logits, expected)
    torch.testing.assert_close(explanation.probabilities, expected.softmax(1))
    for ours, theirs in zip(explanation.records, attention_records(model, images), strict=True):
        assert ours.name == theirs.name
        assert torch.equal(ours.map, theirs.map)
        assert explanation[ours.name] is ours
    assert torch.equal(model(images), expected)


def test_the_most_probable_classes_come_first() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, -1.0, 5.0]])
    explanation = Explanation(logits, logits.softmax(1), ())
    first, second = explanation.top(2)
    assert [guess.label for guess in first] == [1, 2]
    assert [guess.label for guess in second] == [2, 0]
    assert first[0].probability == pytest.approx(logits.softmax(1)[0, 1].item())
    assert len(explanation.top(99)[0]) == 3
    assert sum(guess.probability for guess in explanation.top(3)[1]) == pytest.approx(1)
    with pytest.raises(ValueError, match="k must be at least 1"):
        explanation.top(0)


def test_the_package_is_the_function() -> None:
    assert inspect.signature(foveate.explain) == inspect.signature(explain)
    assert foveate.explain.explain is explain
    assert foveate.explain.overlay is sys.modules["foveate.explain"].overlay
    with pytest.raises(AttributeError, match="has no attribute 'explane'"):
        foveate.explane  # noqa: B018


ORDERS = """
import os, sys
import timm, torch
for first in (
    "import foveate",
    "import foveate.explain",
    "from foveate.explain import overlay; overlay",
    "from foveate import explain; assert explain.overlay",
):
    if os.fork():
        assert os.wait()[1] == 0, first
        continue
    exec(first)
    import foveate
    assert ("foveate.explain" in sys.modules) == (first != "import foveate")
    model = timm.create_model("cram_resnet_tiny", num_classes=3)
    assert len(foveate.explain(model, torch.zeros(1, 3, 32, 32)).records) == 1
    import foveate.explain
    from foveate.explain import overlay
    assert callable(foveate.explain) and callable(overlay) and foveate.explain.overlay is overlay
    assert "pytorch_grad_cam" not in sys.modules  # which takes its time, and is not for all
    os._exit(0)
"""


@pytest.mark.slow
def test_it_can_be_called_however_it_was_imported(python: Interpreter) -> None:
    done = python.run(ORDERS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", TINY)
def test_the_network_is_left_exactly_as_it_was(name: str) -> None:
    model, images = lived_in(network(name, drop_rate=0.5)), torch.randn(2, 3, 24, 24)
    snapshot = Snapshot(model)
    foveate.explain(model, images, query=(3, 5))
    snapshot.assert_unchanged()
    with torch.inference_mode():
        foveate.explain(model, images)
    snapshot.assert_unchanged()


@pytest.mark.slow
def test_a_network_built_for_inference_alone_is_explained() -> None:
    with torch.inference_mode():
        model = network()
        expected = foveate.explain(model, torch.ones(1, 3, 32, 32))
    explanation = foveate.explain(model, torch.ones(1, 3, 32, 32))
    assert torch.equal(explanation.logits, expected.logits)


class Restless(nn.Module):
    """Changes buffers and draws random numbers in evaluation mode too, and fails when told to."""

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.fails = fails
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        x = x + torch.randn_like(x)
        if self.fails:
            raise RuntimeError("no forward")
        return x


@pytest.mark.parametrize("fails", [False, True])
def test_buffers_and_random_states_are_left_too(fails: bool) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        RectangularAttention2d(6),
        Restless(fails),
        PositionwiseAttention2d(6),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    model = lived_in(model)
    snapshot = Snapshot(model)
    with pytest.raises(RuntimeError, match="no forward") if fails else nullcontext():
        foveate.explain(model, torch.ones(2, 3, 9, 9))
    snapshot.assert_unchanged()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cram_resnet_tiny", "gsa_resnet_tiny", "conv_resnet_tiny"])
def test_explaining_many_images_keeps_nothing(name: str) -> None:
    """Neither hooks nor tensors grow in number, and the logits stay bit-equal."""
    model, images = network(name), torch.randn(30, 1, 3, 32, 32)
    before = [model(image).detach() for image in images[:5]]
    snapshot = Snapshot(model)
    counts = {}
    for number, image in enumerate(images):
        foveate.explain(model, image)
        if number in (4, 29):  # at once, without waiting for the collector of cycles
            counts[number] = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
    assert counts[29] <= counts[4]
    snapshot.assert_unchanged()
    assert all(torch.equal(model(image), expected) for image, expected in zip(images, before, strict=False))


@pytest.mark.slow
def test_only_the_modules_asked_for() -> None:
    model = foveate.insert(network(), PositionwiseAttention2d, at=1)
    names = [record.name for record in foveate.explain(model, torch.randn(1, 3, 32, 32)).records]
    assert names == ["layer1.attention", "layer3.attention"]
    explanation = foveate.explain(model, torch.randn(1, 3, 32, 32), names=names[:1])
    assert [record.name for record in explanation.records] == names[:1]
    with pytest.raises(KeyError, match=r"no record of 'layer3\.attention'; did you mean 'layer1\.attention'"):
        explanation["layer3.attention"]


@pytest.mark.slow
def test_bad_input_is_refused() -> None:
    model, images = network(), torch.randn(2, 3, 32, 32)
    for wrong, got in ((images[0], r"shape \(3, 32, 32\)"), ([1], "a list"), (images[:0], r"shape \(0, 3, 32, 32\)")):
        with pytest.raises(ValueError, match=rf"images must be a batch \(B, C, H, W\).*{got}"):
            foveate.explain(model, wrong)
    with pytest.raises(ValueError, match=r"images must be floating-point numbers.*got torch\.uint8"):
        foveate.explain(model, images.to(torch.uint8))
    with pytest.raises(ValueError, match=r"model must be a torch\.nn\.Module.*got 'cram_resnet_tiny'"):
        foveate.explain("cram_resnet_tiny", images)
    with pytest.raises(ValueError, match="method must be one of auto, attention, gradcam"):
        foveate.explain(model, images, method="grad-cam")
    with pytest.raises(ValueError, match="targets choose the class that Grad-CAM explains"):
        foveate.explain(model, images, targets=[1, 2])
    with pytest.raises(ValueError, match="Grad-CAM has none"):
        foveate.explain(model, images, method="gradcam", query=(1, 1))
    with pytest.raises(ValueError, match=r"query=\(32, 0\) lies outside"):
        foveate.explain(model, images, query=(32, 0))
    with pytest.raises(ValueError, match="did you mean"):
        foveate.explain(model, images, names=["layer4.attention"])
    with pytest.raises(ValueError, match="ResNet has no attention module; use method='gradcam'"):
        foveate.explain(network("conv_resnet_tiny"), images, method="attention")
    model.reset_classifier(0, "")
    assert foveate.explain(model, images).logits is None  # features, no classes
    conv = network("conv_resnet_tiny")
    conv.reset_classifier(0, "")
    with pytest.raises(ValueError, match="Grad-CAM explains classifiers"):
        foveate.explain(conv, images)
