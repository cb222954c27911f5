"""Cards beside weights: they vouch for them, and what does not fit is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from foveate.io import NetworkMeta, load_network, load_weights, read_card, save_with_card


@pytest.fixture
def carded(saved: tuple[Path, nn.Module, NetworkMeta]) -> tuple[Path, nn.Module, NetworkMeta]:
    path, model, meta = saved
    save_with_card(path, model, meta, license="mit", data={"name": "digits"})
    return saved


def test_a_card_vouches_for_the_weights(carded: tuple[Path, nn.Module, NetworkMeta]) -> None:
    path, model, meta = carded
    card = read_card(path.with_suffix(".json"))
    assert (card.name, card.network, card.license, card.data) == ("model", meta, "mit", {"name": "digits"})
    assert card.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (card.parameters, card.dtype) == (sum(p.numel() for p in model.parameters()), "float32")
    for place in (path, path.with_suffix(".json"), path.parent):
        loaded, read = load_network(place)
        assert read == meta
        assert all(map(torch.equal, loaded.state_dict().values(), model.state_dict().values()))


def test_one_flipped_bit_is_seen(carded: tuple[Path, nn.Module, NetworkMeta]) -> None:
    path, model, _ = carded
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    message = r"model.json does not belong to model.safetensors: its sha256 is '[0-9a-f]{64}', that of the weights"
    for load in (load_network, lambda place: load_weights(model, place)):
        with pytest.raises(ValueError, match=message):
            load(path)


def test_a_card_of_version_0_1_spells_license_the_other_way(carded: tuple[Path, nn.Module, NetworkMeta]) -> None:
    file = carded[0].with_suffix(".json")
    card = json.loads(file.read_text())
    card["licence"] = card.pop("license")
    file.write_text(json.dumps(card))
    assert read_card(file).license == card["licence"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, "does not belong to model.safetensors: its sha256 is"),
        ({"parameters": 3}, "its parameters is 3, that of the weights"),
        ({"dtype": "float16"}, "its dtype is 'float16', that of the weights 'float32'"),
        ({"network": {"crop_pct": 0.5}}, "its network.crop_pct is 0.5, that of the weights 0.9"),
        ({"network": {"kwargs": {"num_classes": 9}}}, "its network.kwargs is"),
        ({"network": {"std": [0, 1, 1]}}, "model.json is not a model card, or is damaged: std must be"),
        ({"network": {"code": "x"}}, "model.json is not a model card, or is damaged: .*'code'"),
        ({"network": None}, "network must be keys with values; got None"),
        ({"sha256": "abc"}, "sha256 must be 64 hexadecimal digits; got 'abc'"),
        ({"dtype": "int8"}, "dtype must be one of"),
        ({"parameters": "many"}, "parameters must be an integer"),
        ({"license": 3}, "license must be text"),
        ({"recipe": "long"}, "recipe must be keys with values"),
        ({"format": 2}, "format must be 1"),
        ({"pickle": "x"}, "model.json is not a model card, or is damaged: .*'pickle'"),
    ],
)
def test_a_card_that_does_not_fit(
    change: dict[str, object], message: str, carded: tuple[Path, nn.Module, NetworkMeta]
) -> None:
    path, _, _ = carded
    card = json.loads(path.with_suffix(".json").read_text())
    inner = change.get("network")
    changed = {**card, **change, **({"network": {**card["network"], **inner}} if isinstance(inner, dict) else {})}
    path.with_suffix(".json").write_text(json.dumps(changed))
    with pytest.raises(ValueError, match=message):
        load_network(path)


@pytest.mark.parametrize("content", ["", "{", "[]", '"card"', "{}", '{"network": {}}', "[" * 100_000], ids=len)
def test_a_file_that_is_no_card(content: str, carded: tuple[Path, nn.Module, NetworkMeta]) -> None:
    path, _, _ = carded
    path.with_suffix(".json").write_text(content)
    with pytest.raises(ValueError, match=r"model.json is not a model card"):
        load_network(path)


def test_a_card_without_its_weights(carded: tuple[Path, nn.Module, NetworkMeta]) -> None:
    path, _, _ = carded
    path.unlink()
    with pytest.raises(ValueError, match=r"there is no checkpoint .*model.safetensors"):
        load_network(path.with_suffix(".json"))


def test_no_weights_are_left_without_their_card(saved: tuple[Path, nn.Module, NetworkMeta]) -> None:
    path, model, meta = saved
    other = path.with_name("other.safetensors")
    with pytest.raises(ValueError, match="license must be text"):
        save_with_card(other, model, meta, license=5)
    other.with_suffix(".json").mkdir()  # which cannot be written over
    with pytest.raises(OSError, match=r"other.json"):
        save_with_card(other, model, meta)
    assert not other.exists()
    path.with_suffix(".json").mkdir()
    before = path.read_bytes()
    with torch.no_grad():
        model.get_classifier().bias += 1
    with pytest.raises(OSError, match=r"\.json"):
        save_with_card(path, model, meta)
    assert path.read_bytes() == before  # what was there is not lost
    assert sorted(file.suffix for file in path.parent.iterdir()) == [".json", ".json", ".safetensors"]
