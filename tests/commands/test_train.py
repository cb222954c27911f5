"""``foveate train`` as a program calls it: what it leaves behind, and what it refuses to begin."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch.nn import functional as F

from foveate.cli import parse_command
from foveate.data import ClutteredDigits
from foveate.io import load_network
from foveate.training import TrainConfig
from foveate.training import train_network as run
from foveate.training.distributed import SINGLE_PROCESS, Distributed
from foveate.training.run_folder import resume_command

DIGITS: dict[str, Any] = {"size": 16, "clutter": 1, "length": 48, "val_length": 20, "test_length": 31}


def config(out: Path, **changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {"model": "test_resnet", "data_options": DIGITS, "epochs": 2, "batch_size": 8}
    settings |= {"device": "cpu", "warmup_epochs": 0.5, "lr": 3e-3, "out": str(out), **changes}
    return TrainConfig(**settings)


def write_folder(root: Path, images: int = 12) -> Path:
    """Write a folder of images: two classes, told apart by their colour, with no test split."""
    for split in ("train", "val"):
        for label, colour in (("blue", (30, 40, 200)), ("red", (200, 40, 30))):
            folder = root / split / label
            folder.mkdir(parents=True)
            for index in range(images):
                Image.new("RGB", (37, 29), tuple(value + index for value in colour)).save(folder / f"{index}.png")
    return root


@pytest.mark.slow
def test_a_run_leaves_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    result = run(config(out, seed=4, ema_decay=0.9))
    assert json.loads((out / "result.json").read_text()) == result
    assert {entry.name for entry in out.iterdir()} == {
        "best.ckpt", "config.yaml", "last.ckpt", "logs", "model.safetensors", "result.json", "tensorboard",
    }  # fmt: skip
    assert [row["epoch"] for row in result["history"]] == [1, 2]
    assert (result["seed"], result["split"], result["images"], result["bad_images"]) == (4, "test", 31, [])
    assert result["environment"]["torch"] == torch.__version__.split("+")[0]
    output = capsys.readouterr()
    assert [line.split("/")[0] for line in output.out.splitlines()[:2]] == ["epoch   1", "epoch   2"]
    assert f"on 31 test images; the run is in {out}" in output.out
    assert output.err == ""

    # The figures are those of the saved weights on the test digits, computed here by hand.
    network, meta = load_network(out)
    digits = ClutteredDigits("test", size=16, clutter=1, length=31)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (meta.mean, meta.std))
    right, losses = [], []
    for image, label in digits:
        pixels = torch.tensor(np.array(image)).permute(2, 0, 1) / 255
        with torch.inference_mode():
            logits = network(((pixels - mean) / std)[None])[0]
        right.append(int(logits.argmax() == label))
        losses.append(F.cross_entropy(logits, torch.tensor(label)).item())
    assert result["correct"] == right
    assert result["metrics"]["top1"] == pytest.approx(sum(right) / 31)
    assert result["metrics"]["loss"] == pytest.approx(sum(losses) / 31, rel=1e-4)
    labels = [label for _, label in digits]
    for name, share in zip(meta.classes, result["metrics"]["per_class"], strict=True):
        of_class = [r for r, label in zip(right, labels, strict=True) if meta.classes[label] == name]
        assert share == pytest.approx(sum(of_class) / len(of_class))


@pytest.mark.slow
def test_the_saved_configuration_gives_the_same_run(tmp_path: Path) -> None:
    asked = config(tmp_path / "a", mixup=0.2, img_size=(16, 16), model_args={"drop_rate": 0.2}, random_erasing=0.5)
    first = run(asked, verbose=False)
    saved = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())
    assert saved == json.loads(json.dumps(dataclasses.asdict(asked)))
    again = run(TrainConfig(**{**saved, "out": str(tmp_path / "b")}), verbose=False)
    assert again["correct"] == first["correct"]
    assert [row["train_loss"] for row in again["history"]] == [row["train_loss"] for row in first["history"]]
    other = run(TrainConfig(**{**saved, "out": str(tmp_path / "c"), "seed": 1}), verbose=False)
    assert other["history"][0]["train_loss"] != first["history"][0]["train_loss"]


@pytest.mark.slow
def test_photographs_in_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_folder(tmp_path / "photos")
    (data / "train" / "red" / "5.png").write_text("no image")
    wanted = config(tmp_path / "run", data=str(data), data_options={}, img_size=(24, 32), max_bad_images=1, epochs=3)
    result = run(wanted)
    assert (result["split"], result["images"]) == ("val", 24)
    assert "validation images (there are no test images)" in capsys.readouterr().out
    assert result["network"]["classes"] == ["blue", "red"]
    assert result["network"]["img_size"] == [24, 32]
    assert result["metrics"]["top5"] is None
    assert result["metrics"]["top1"] == 1.0
    assert len(result["bad_images"]) == 1
    assert "red/5.png" in result["bad_images"][0]


@pytest.mark.slow
def test_images_of_another_size_reach_networks_that_depend_on_it(tmp_path: Path) -> None:
    result = run(config(tmp_path, model="test_vit", epochs=1), verbose=False)
    assert result["network"]["kwargs"]["img_size"] == [16, 16]
    network, _ = load_network(tmp_path)
    assert network(torch.zeros(1, 3, 16, 16)).shape == (1, 10)


@pytest.mark.slow
def test_starting_from_a_checkpoint(tmp_path: Path) -> None:
    run(config(tmp_path / "a"), verbose=False)
    start = str(tmp_path / "a" / "model.safetensors")
    # With a learning rate of nearly nothing, the weights remain those that it started from.
    run(config(tmp_path / "b", checkpoint=start, lr=1e-12, min_lr=0, weight_decay=0, seed=7), verbose=False)
    first, second = (load_network(tmp_path / name)[0] for name in "ab")
    for name, value in first.named_parameters():
        torch.testing.assert_close(value, second.get_parameter(name), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="checkpoint of another network than ResNet"):
        run(config(tmp_path / "c", model="resnet10t", checkpoint=start))
    assert not (tmp_path / "c").exists()
    data = write_folder(tmp_path / "photos")
    fine = config(tmp_path / "d", checkpoint=start, data=str(data), data_options={}, img_size=16, epochs=1)
    assert len(run(fine, verbose=False)["metrics"]["per_class"]) == 2


@pytest.mark.slow
def test_a_run_is_not_written_over(tmp_path: Path) -> None:
    run(config(tmp_path), verbose=False)
    result = (tmp_path / "result.json").read_bytes()
    for resume in (False, True):
        with pytest.raises(ValueError, match="holds a finished run; give another `out`"):
            run(config(tmp_path, resume=resume))
    (tmp_path / "result.json").unlink()
    with pytest.raises(ValueError, match="holds an unfinished run; continue it with `--resume`"):
        run(config(tmp_path))
    with pytest.raises(
        ValueError, match=r"started with other settings.*\n  lr: 0.003 there, 0.1 now\n  model: 'test_res"
    ):
        run(config(tmp_path, resume=True, lr=0.1, model="resnet10t"))
    run(config(tmp_path, resume=True, workers=0), verbose=False)
    kept = json.loads(result)
    assert json.loads((tmp_path / "result.json").read_bytes())["correct"] == kept["correct"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": ""}, "no network given"),
        ({"model": "test_resnett"}, "unknown model 'test_resnett'; did you mean 'test_resnet'"),
        ({"model_args": {"stemm": "small"}}, "does not take these arguments: .*'stemm'"),
        ({"model_args": {"layers": "many"}}, "does not take these arguments|cannot be built"),
        ({"model_args": {"act_layer": "nope"}}, "model test_resnet cannot be built with .*'act_layer': 'nope'"),
        ({"model_args": {"num_classes": 3}}, "model_args cannot set num_classes: it follows from the task"),
        ({"model_args": {"in_chans": 1}}, "model_args cannot set in_chans"),
        ({"model_args": {"features_only": True}}, "model_args cannot set features_only"),
        (
            {"model": "test_vit", "model_args": {"global_pool": ""}},
            r"test_vit gives \(1, \d, 10\) for one image, where a classifier of 10 classes gives \(1, 10\)",
        ),
        ({"model": "inception_v3"}, "inception_v3 does not take an image of 3×16×16: .*img_size"),
        (
            {"model": "vit_tiny_patch16_224", "model_args": {"img_size": 32, "depth": 1}},
            "vit_tiny_patch16_224 does not take an image of 3×16×16",
        ),
        ({"img_size": 0}, "img_size must be at least 1; got 0"),
        ({"data": "digit", "data_options": {}}, "no data set is called 'digit'"),
        ({"data_options": {"noise": 3}}, "noise"),
        ({"device": "gpu"}, "device must be one of auto, cpu, cuda"),
        ({"precision": "16-mixed"}, "precision=16-mixed needs a CUDA GPU"),
        ({"batch_size": 49}, "batch_size=49 leaves no whole batch of the 48 training images"),
        ({"mixup": -1}, "mixup must be"),
        ({"crop": "middle"}, "crop must be one of"),
        ({"workers": -1}, "workers must be at least 0"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"resume": True}, "there is nothing to resume in .*: it has no last.ckpt"),
        ({"checkpoint": "nowhere.safetensors"}, "there is no checkpoint nowhere.safetensors"),
        ({"sched": "plateau"}, "sched must be one of cosine, step, poly, tanh, none"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_not_begun(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "run"
    with pytest.raises(ValueError, match=message):
        run(config(out, **changes))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "lr: [", "- lr", "lr: 0.1\nepochs: 3\n"], ids=repr)
def test_a_configuration_of_somebody_else_stays(content: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"config.yaml is damaged, or not of such a run; move it away, or give"):
        run(config(tmp_path))
    assert path.read_text() == content
    (tmp_path / "last.ckpt").touch()
    with pytest.raises(ValueError, match=r"config.yaml is damaged, or not of such a run; move it away, or give"):
        run(config(tmp_path, resume=True))
    assert [entry.name for entry in tmp_path.iterdir() if entry != path] == ["last.ckpt"]


@pytest.mark.slow
@pytest.mark.parametrize("damage", [lambda content: content[:1000], lambda _: b"", lambda _: other_weights()])
def test_a_damaged_checkpoint_is_named(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    run(config(tmp_path), verbose=False)
    (tmp_path / "result.json").unlink()
    last = tmp_path / "last.ckpt"
    last.write_bytes(damage(last.read_bytes()))
    with pytest.raises(ValueError, match=r"last.ckpt is damaged, or not of a run; delete it, or give another `out`"):
        run(config(tmp_path, resume=True))


def other_weights() -> bytes:
    file = io.BytesIO()
    torch.save({"weight": torch.ones(3)}, file)
    return file.getvalue()


@pytest.mark.slow
def test_more_bad_images_may_be_allowed_when_a_run_is_resumed(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "photos")
    (data / "train" / "red" / "0.png").write_text("no image")
    options: dict[str, Any] = {"data": str(data), "data_options": {}, "img_size": 16}
    with pytest.raises(ValueError, match="leave them out with max_bad_images=1"):
        run(config(tmp_path / "run", **options), verbose=False)
    result = run(config(tmp_path / "run", **options, max_bad_images=1, resume=True), verbose=False)
    assert len(result["bad_images"]) == 1


def test_an_empty_folder_and_one_with_a_bad_image(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty"):
        run(config(tmp_path / "run", data=str(tmp_path / "empty"), data_options={}))
    data = write_folder(tmp_path / "photos")
    (data / "train" / "red" / "0.jpg").write_text("a text file named .jpg")
    with pytest.raises(ValueError, match=r"max_bad_images allows 0:\n.*red/0.jpg"):
        run(config(tmp_path / "run", data=str(data), data_options={}, img_size=16, epochs=3), verbose=False)


@pytest.mark.slow
def test_workers_do_not_change_the_result(tmp_path: Path) -> None:
    alone = run(config(tmp_path / "alone", epochs=1), verbose=False)
    helped = run(config(tmp_path / "helped", epochs=1, workers=2), verbose=False)
    assert helped["history"][0]["train_loss"] == alone["history"][0]["train_loss"]
    assert helped["correct"] == alone["correct"]


def test_loggers_are_given_one_by_one_or_as_a_list() -> None:
    for words in (["--logger", "csv", "--logger=tensorboard"], ["--logger=[csv, tensorboard]"]):
        assert parse_command("train", ["gsa_resnet_tiny", *words]).logger == ["csv", "tensorboard"]
    assert parse_command("train", ["gsa_resnet_tiny", "--logger", "csv"]).logger == ["csv"]


def test_what_stands_behind_dashes_is_no_option() -> None:
    config = parse_command("explain", ["--checkpoint", "runs/a", "--", "-photo.jpg", "--overlays"])
    assert (config.checkpoint, config.images) == (["runs/a"], ["-photo.jpg", "--overlays"])


def test_an_interrupted_run_says_which_modules_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEATE_IMPORT", "mine,other.modules")
    said = resume_command(tmp_path, SINGLE_PROCESS)
    assert said.startswith("foveate --import mine --import other.modules train --config ")
    of_two = resume_command(tmp_path, Distributed(size=8, local_size=4, launched=True))
    assert of_two.startswith("torchrun --nnodes=2 --nproc_per_node=4 … -m foveate --import mine")
