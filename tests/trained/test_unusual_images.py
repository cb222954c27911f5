"""Images and networks as users have them: opened by Pillow, damaged, of 12 bits, in half precision."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin

import foveate
from foveate.data import open_data
from foveate.io import load_network, save_network
from tests.made_sets import write_photo
from tests.trained.made import saved

ORIENTATION, MAX_SAMPLE_VALUE = 0x0112, 281


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> foveate.TrainedNetwork:
    return foveate.load(saved(tmp_path_factory.mktemp("network") / "model.safetensors"))


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_tiff_of_12_bits_is_the_same_by_its_path_and_opened(
    trained: foveate.TrainedNetwork, tmp_path: Path, orientation: int
) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (37, 53)).astype(np.uint16)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[MAX_SAMPLE_VALUE] = 4095
    tags[ORIENTATION] = orientation
    Image.fromarray(values).save(tmp_path / "thermal.tif", tiffinfo=tags)
    by_path = trained.opened(tmp_path / "thermal.tif")[1]
    assert np.asarray(by_path).max() == 255
    with Image.open(tmp_path / "thermal.tif") as image:
        assert trained.opened(image)[1].tobytes() == by_path.tobytes()
        assert not any("foveate" in str(key) for key in image.info)


def test_a_damaged_image_is_a_value_error_however_it_is_given(trained: foveate.TrainedNetwork, tmp_path: Path) -> None:
    whole = write_photo(tmp_path / "whole.jpg", 0, (300, 200)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated"):
        trained.predict(tmp_path / "cut.jpg")
    with Image.open(tmp_path / "cut.jpg") as image, pytest.raises(ValueError, match="truncated"):
        trained.predict(image)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_network_in_another_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    file = saved(tmp_path / "model.safetensors")
    photo = write_photo(tmp_path / "photo.png", 3, (48, 32))
    wanted, other = foveate.load(file), foveate.load(file)
    other.network.to(dtype)
    assert other.prepare(photo).dtype == dtype
    close = 0.05 if dtype == torch.bfloat16 else 1e-6
    ours, theirs = ({guess.label: guess.probability for guess in one.predict(photo, k=7)} for one in (other, wanted))
    assert ours == pytest.approx(theirs, abs=close)
    (found,), (expected,) = (one.explain(photo, names=["layer3.attention"]).records for one in (other, wanted))
    torch.testing.assert_close(found.map.float(), expected.map, rtol=0, atol=close)


@pytest.mark.slow
def test_what_the_caller_draws_does_not_depend_on_networks_built_in_between(tmp_path: Path) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    first = foveate.trained.build("cram_resnet_tiny", seed=1, num_classes=3, img_size=32)
    assert torch.equal(torch.rand(3), wanted)
    again = foveate.trained.build("cram_resnet_tiny", seed=1, num_classes=3, img_size=32)
    other = foveate.trained.build("cram_resnet_tiny", seed=2, num_classes=3, img_size=32)
    torch.manual_seed(5)
    foveate.trained.build("cram_resnet_tiny.digits", pretrained=True)
    first.save(tmp_path / "saved")
    assert torch.equal(torch.rand(3), wanted)
    weights = [one.network.state_dict()["layer1.0.conv2.weight"] for one in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.slow
def test_a_network_with_the_channels_last_stays_so_when_it_is_evaluated(tmp_path: Path) -> None:
    trained = foveate.load(saved(tmp_path / "model.safetensors"))
    kernel = trained.network.get_parameter("layer1.0.conv2.weight")
    for memory_format in (torch.channels_last, torch.contiguous_format):
        trained.network.to(memory_format=memory_format)
        before = kernel.stride()
        trained.evaluate(_loader())
        assert kernel.stride() == before


def _loader() -> torch.utils.data.DataLoader:
    images = torch.randn(5, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, torch.arange(5)), batch_size=2)


@pytest.mark.slow
def test_saving_takes_links_and_the_present_folder(
    trained: foveate.TrainedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    trained.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    trained.save(".")
    weights = trained.network.state_dict()
    for folder in (tmp_path / "real", tmp_path / "here", Path()):
        found, _ = load_network(folder)
        assert all(torch.equal(tensor, weights[name]) for name, tensor in found.state_dict().items())
        assert [file.name for file in folder.iterdir()] == ["model.safetensors"]


@pytest.mark.slow
def test_a_network_that_could_not_be_loaded_again_is_not_saved(tmp_path: Path) -> None:
    trained = foveate.load(saved(tmp_path / "model.safetensors", "conv_resnet_tiny"))
    foveate.insert(trained.network, foveate.nn.RectangularAttention2d, at="layer3")
    with pytest.raises(ValueError, match="conv_resnet_tiny"):
        trained.save(tmp_path / "new")
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    save_network(tmp_path / "other.safetensors", trained.network, trained.meta)  # which does not look


def test_data_that_were_opened_without_the_range_of_the_training_are_refused(tmp_path: Path) -> None:
    for number in range(12):
        path = tmp_path / "thermal" / ("train", "test")[number % 2] / f"class{number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(number).integers(29000, 31000, (32, 48)).astype(np.uint16)
        Image.fromarray(values).save(path)
    (tmp_path / "thermal" / "train" / "class0" / "extra.png").write_bytes(path.read_bytes())
    trained = foveate.load(saved(tmp_path / "model.safetensors", classes=3))
    trained = dataclasses.replace(trained, meta=dataclasses.replace(trained.meta, intensity_range=(29000.0, 31000.0)))
    with pytest.raises(ValueError, match="intensity_range"):
        trained.evaluate(open_data(tmp_path / "thermal", img_size=(32, 48)))
    opened = open_data(tmp_path / "thermal", img_size=(32, 48), intensity_range=(29000, 31000))
    assert trained.evaluate(opened).images == 6


def test_originals_are_held_no_longer_than_they_are_needed(trained: foveate.TrainedNetwork) -> None:
    alive: list[int] = []
    given: list[weakref.ref[Image.Image]] = []

    def frames(number: int) -> Iterator[Image.Image]:
        for index in range(number):
            given.append(weakref.ref(image := Image.new("RGB", (48, 32), (index, 0, 0))))
            alive.append(sum(one() is not None for one in given))
            yield image

    assert len(trained.predict(frames(11), batch_size=2)) == 11
    assert max(alive) <= 5
