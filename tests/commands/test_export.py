"""``foveate export``: what is written computes what the network computes, and says where it is from."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import onnx
import pytest
import timm
import torch
from tests.comparison import relative_error
from tests.export.networks import TINY

from foveate._extras import MissingExtraError
from foveate.cli import main
from foveate.commands.export import ExportConfig, run
from foveate.export import run_onnx, run_program
from foveate.export.hub import page_of
from foveate.export.program import ABOUT
from foveate.io import NetworkMeta, load_network, read_card, save_network
from foveate.training import TrainConfig
from foveate.training import train_network as train

DIGITS: dict[str, Any] = {"size": 16, "clutter": 1, "length": 48, "val_length": 20, "test_length": 31}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("trained") / "run"
    wanted = TrainConfig(
        model="conv_resnet_tiny", data_options=DIGITS, epochs=2, batch_size=8, device="cpu", out=str(out), crop_pct=0.8
    )
    return out, train(wanted, verbose=False)


def logits(path: Path, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return load_network(path)[0](images)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(3, 3, 23, 31, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_weights_with_a_card(
    trained: tuple[Path, dict[str, Any]], images: torch.Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, result = trained
    files = run(ExportConfig(checkpoint=str(out), out=str(tmp_path), name="mine.digits", license="apache-2.0"))
    assert files == [tmp_path / "mine.digits.safetensors", tmp_path / "mine.digits.json"]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert capsys.readouterr().out.splitlines() == [f"{file}  {file.stat().st_size / 1e6:.3f} MB" for file in files]
    for file in files:
        assert torch.equal(logits(file, images), logits(out, images))
    card = read_card(files[1])
    assert card.name == "mine.digits"
    assert dataclasses.asdict(card.network) == result["network"]
    assert card.license == "apache-2.0"
    assert card.data["name"] == "digits"
    assert card.data["options"] == DIGITS
    assert card.data["seed"] == 0
    assert card.data["sizes"] == {"train": 48, "val": 20, "test": 31}
    assert (card.recipe["epochs"], card.recipe["batch_size"], card.recipe["seed"]) == (2, 8, 0)
    assert not {"out", "root", "device", "model", "crop_pct"} & card.recipe.keys()
    metrics = {name: result["metrics"][name] for name in ("top1", "top5", "loss")}
    assert card.test == {"split": "test", "images": 31, **metrics}
    assert card.versions == result["environment"]
    assert str(out) not in files[1].read_text()


def test_half_the_space(trained: tuple[Path, dict[str, Any]], images: torch.Tensor, tmp_path: Path) -> None:
    out, _ = trained
    for half in (False, True):
        run(ExportConfig(checkpoint=str(out), out=str(tmp_path / str(half)), half=half, name="n"))
    whole, half_file = (tmp_path / str(half) / "n.safetensors" for half in (False, True))
    assert half_file.stat().st_size < 0.55 * whole.stat().st_size
    assert read_card(half_file.with_suffix(".json")).dtype == "float16"
    loaded, _ = load_network(half_file)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert relative_error(logits(half_file, images), logits(out, images)) < 5e-3


def test_what_is_not_known_is_not_said(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out, _ = trained
    from_epoch = run(ExportConfig(checkpoint=str(out / "best.ckpt"), out=str(tmp_path / "epoch")))
    card = read_card(from_epoch[1])
    assert card.recipe["epochs"] == 2
    assert card.test == {}  # these were not tested
    assert card.license is None
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((out / "model.safetensors").read_bytes())
    card = read_card(run(ExportConfig(checkpoint=str(alone), out=str(tmp_path / "out")))[1])
    assert (card.data, card.recipe, card.test) == ({}, {}, {})
    assert card.versions.keys() >= {"foveate", "torch", "timm"}


def test_a_card_says_nothing_of_other_files(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("password: hunter2\ndata: secret\nepochs: 3\n")
    Path("alone.safetensors").write_bytes((trained[0] / "model.safetensors").read_bytes())
    card = read_card(run(ExportConfig(checkpoint="alone.safetensors", out="a"))[1])
    assert (card.data, card.recipe) == ({}, {})
    Path("model.safetensors").write_bytes((trained[0] / "model.safetensors").read_bytes())
    assert read_card(run(ExportConfig(checkpoint="model.safetensors", out="b"))[1]).recipe == {"epochs": 3}
    card = read_card(run(ExportConfig(checkpoint="cram_resnet_tiny.digits", out="c"))[1])
    assert (card.data["name"], card.recipe["equivariance"], card.license) == ("digits", 1, "apache-2.0")


def test_a_card_goes_along_with_its_weights(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    first = run(ExportConfig(checkpoint=str(trained[0]), out=str(tmp_path / "a"), name="x", license="mit"))
    second = run(ExportConfig(checkpoint=str(first[0]), out=str(tmp_path / "b"), name="x"))
    assert second[1].read_text() == first[1].read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("form", "suffix"), [("torch", "pt2"), ("onnx", "onnx")])
def test_graphs(
    form: str, suffix: str, trained: tuple[Path, dict[str, Any]], images: torch.Tensor, tmp_path: Path, capsys: Any
) -> None:
    out, result = trained
    wanted = ExportConfig(checkpoint=str(out), to=form, out=str(tmp_path), normalize=True)  # type: ignore[arg-type]
    (file,) = run(wanted)
    assert file == tmp_path / f"conv_resnet_tiny.{suffix}"
    assert list(tmp_path.iterdir()) == [file]
    assert "7 shapes compared, sides of 9 and more: relative error at most" in capsys.readouterr().out
    content = file.read_bytes()
    graph = (run_onnx if form == "onnx" else run_program)(content)
    network = result["network"]
    mean, std = (torch.tensor(network[name]).view(3, 1, 1) for name in ("mean", "std"))
    assert relative_error(graph(images), logits(out, (images - mean) / std)) < 1e-5
    if form == "onnx":
        (entry,) = onnx.load_from_string(content).metadata_props
        about = json.loads(entry.value)
    else:
        files = {ABOUT: ""}
        torch.export.load(io.BytesIO(content), extra_files=files)
        about = json.loads(files[ABOUT])
    assert about["network"] == network
    assert (about["input"], about["smallest_side"]) == ("RGB images (B, C, H, W) in [0, 1]", 9)


@pytest.mark.slow
def test_a_graph_for_one_size(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    arguments = ["--to", "onnx", "--batch", "2", "--size", "[20, 28]", "--name", "fixed", "--out", str(tmp_path)]
    assert main(["export", str(trained[0]), *arguments]) == 0
    images = torch.randn(2, 3, 20, 28)
    graph = run_onnx((tmp_path / "fixed.onnx").read_bytes())
    assert relative_error(graph(images), logits(trained[0], images)) < 1e-5
    with pytest.raises(Exception, match="invalid dimensions"):
        graph(torch.randn(1, 3, 20, 28))


@pytest.mark.slow
@pytest.mark.parametrize("family", TINY)
def test_a_folder_that_timm_loads(family: str, images: torch.Tensor, tmp_path: Path) -> None:
    name, kwargs = f"{family}_resnet_tiny", {"num_classes": 3, "in_chans": 3, "img_size": [16, 20]}
    meta = NetworkMeta(
        model=name,
        kwargs=kwargs,
        classes=["ant", "bee", "cat"],
        img_size=[16, 20],
        mean=[0.1, 0.2, 0.3],
        std=[0.4, 0.5, 0.6],
        crop_pct=0.9,
        interpolation="bilinear",
    )
    torch.manual_seed(1)
    model = timm.create_model(name, **kwargs).eval()
    save_network(tmp_path / "model.safetensors", model, meta)
    run(ExportConfig(checkpoint=str(tmp_path), to="hub", out=str(tmp_path / "hub"), license="mit"))
    names = {file.name for file in (tmp_path / "hub").iterdir()}
    assert names == {"config.json", "model.json", "model.safetensors"}
    loaded = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images))
    data = timm.data.resolve_model_data_config(loaded)
    assert data["input_size"] == (3, 16, 20)
    assert (list(data["mean"]), list(data["std"])) == (meta.mean, meta.std)
    assert (data["crop_pct"], data["interpolation"]) == (0.9, "bilinear")
    assert list(loaded.pretrained_cfg["label_names"]) == ["ant", "bee", "cat"]
    assert loaded.pretrained_cfg["license"] == "mit"
    assert "tag" not in loaded.pretrained_cfg  # of the weights that timm knows under the name
    assert all(map(torch.equal, loaded.state_dict().values(), model.state_dict().values()))
    assert torch.equal(logits(tmp_path / "hub", images), model(images))  # and this library, with its card


def test_weights_of_a_run_are_not_replaced(trained: tuple[Path, dict[str, Any]]) -> None:
    out = trained[0]
    before = (out / "model.safetensors").read_bytes()
    for change in ({"to": "hub"}, {"name": "model", "half": True}):
        with pytest.raises(ValueError, match="out: "):
            run(ExportConfig(checkpoint=str(out), out=str(out), **change))
    assert (out / "model.safetensors").read_bytes() == before


def test_what_was_written_is_uploaded(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub is out of reach of a test: what would be uploaded is caught at the last step, and loaded."""
    uploaded = tmp_path / "uploaded"
    uploaded.mkdir()

    def create_repo(self: Any, repo_id: str, **_: Any) -> Any:
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    def create_commit(self: Any, *, operations: list[Any], repo_id: str, **_: Any) -> None:
        assert repo_id == "someone/digits"
        for operation in operations:
            with operation.as_file() as file:
                (uploaded / operation.path_in_repo).write_bytes(file.read())

    replaced: dict[str, Callable[..., Any]] = {
        "create_repo": create_repo,
        "file_exists": lambda self, **_: False,
        "create_commit": create_commit,
    }
    for name, method in replaced.items():
        monkeypatch.setattr(huggingface_hub.HfApi, name, method)
    out, result = trained
    hub = tmp_path / "hub"
    run(ExportConfig(checkpoint=str(out), to="hub", out=str(hub), push="someone/digits", license="MIT", half=True))
    names = {"config.json", "model.safetensors", "model.json"}  # no pickle
    assert {file.name for file in uploaded.iterdir()} == {"README.md", *names}
    assert all((uploaded / name).read_bytes() == (hub / name).read_bytes() for name in names)
    images = torch.rand(2, 3, 16, 16)
    loaded = timm.create_model(f"local-dir:{uploaded}", pretrained=True).eval()
    with torch.no_grad():
        assert torch.equal(loaded(images), logits(hub, images))
    page = (uploaded / "README.md").read_text()
    assert "license: mit" in page
    assert f"top1: {result['metrics']['top1']}" in page
    bare = Path(shutil.copy(out / "model.safetensors", tmp_path / "bare.safetensors"))  # of which no more is known
    run(ExportConfig(checkpoint=str(bare), to="hub", out=str(tmp_path / "of bare"), push="someone/digits"))
    assert "license: unknown" in (uploaded / "README.md").read_text()
    assert "license: other\nlicense_name: research-only" in page_of(
        "gsa_resnet_tiny", {"license": "LicenseRef-research-only"}
    )
    assert "foveate" in page_of("gsa_resnet_tiny.digits", {})
    assert "foveate" not in page_of("resnet26d", {"license": "GPL-3.0-only"})  # which is not of this library


def test_what_cannot_be_is_refused(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out, target = str(trained[0]), tmp_path / "target"
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "no checkpoint given"),
        ({"checkpoint": str(tmp_path / "none")}, "there is no checkpoint"),
        ({"checkpoint": out, "to": "tensorrt"}, "to must be one of weights, torch, onnx, hub; got 'tensorrt'"),
        ({"checkpoint": out, "name": "a/b"}, "name must be that of a file"),
        ({"checkpoint": out, "name": ".."}, "name must be that of a file"),
        ({"checkpoint": out, "to": "onnx", "half": True}, "half means nothing to onnx, only to weights and hub"),
        ({"checkpoint": out, "normalize": True}, "normalize means nothing to weights"),
        ({"checkpoint": out, "to": "hub", "size": 32}, "size means nothing to hub"),
        ({"checkpoint": out, "to": "onnx", "batch": 0}, "batch must be at least 1"),
        ({"checkpoint": out, "to": "onnx", "size": (3, 0)}, "size must be at least 1"),
        ({"checkpoint": out, "push": "a/b"}, "push means nothing to weights"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            run(ExportConfig(**options, out=str(target)))
    assert not target.exists()


def test_a_missing_extra_is_named_before_anything_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"foveate\[export\]"):
        run(ExportConfig(checkpoint="nowhere", to="onnx", out=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_graph_that_differs_is_not_written(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foveate.export.checking.TOLERANCE", -1.0)
    with pytest.raises(ValueError, match=r"differs from the network by .*; nothing was written"):
        run(ExportConfig(checkpoint=str(trained[0]), to="onnx", out=str(tmp_path), size=(16, 16), batch=1))
    assert not list(tmp_path.iterdir())
