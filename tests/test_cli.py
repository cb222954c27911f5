"""The command line: what it accepts, and what it says, in one line and with exit code 2, when it cannot."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import pty
import shlex
import signal
import subprocess
import termios
from pathlib import Path

import pytest
import yaml

from foveate import __version__
from foveate.cli import main, parse_command
from foveate_cli import COMMANDS
from tests.command_line import FOVEATE, TINY, TRAIN, fails, printed


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for option, expected in (("--version", f"foveate {__version__}\n"), ("--help", "  train several networks")):
        with pytest.raises(SystemExit) as stopped:
            main([option])
        assert stopped.value.code == 0
        assert expected in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    options = text[text.rindex("--print_config") :]
    blocks = [" ".join(block.split()) for block in options.split("\n  --")[1:]]
    assert blocks
    for block in blocks:
        explanation = block.split("(type:")[0].split(" ", 2)[-1]
        assert len(explanation.split()) >= 3, f"{command}: --{block}"


@pytest.mark.slow
def test_the_command_line_overrides_the_file_which_overrides_the_defaults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("model: test_vit\nlr: 0.5\nepochs: 7\nimg_size: [16, 24]\nmodel_args: {depth: 2}\n")
    for argv in (["--lr=0.25", f"--config={file}"], ["--config", str(file), "--lr", "0.25"]):
        config = printed(["train", *argv], capsys)
        assert (config["model"], config["lr"], config["epochs"], config["batch_size"]) == ("test_vit", 0.25, 7, 64)
        assert config["img_size"] == [16, 24]
        assert config["model_args"] == {"depth": 2}
    config = printed(["train", "resnet10t", "--config", str(file), "--model_args.depth=3", "--resume"], capsys)
    assert (config["model"], config["model_args"], config["resume"]) == ("resnet10t", {"depth": 3}, True)
    config = printed(["compare", "a", "b:x=1,y=2", "--download", "false", "--channels_last"], capsys)
    assert (config["models"], config["download"], config["channels_last"]) == (["a", "b:x=1,y=2"], False, True)


def test_a_printed_configuration_is_taken_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["compare", "a", "b", "--seeds=2", "--scale=[0.5, 1]", "--img_size=33", "--data_options", TINY]
    config = printed(argv, capsys)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert printed(["compare", "--config", str(tmp_path / "config.yaml")], capsys) == config


@pytest.mark.slow
def test_a_whole_run_says_only_what_it_should(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [*FOVEATE, *TRAIN, "--epochs=2", f"--out={out}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line[:11] for line in lines[:2]] == ["epoch   1/2", "epoch   2/2"]
    assert lines[2:] == [f"top-1 {json.loads((out / 'result.json').read_text())['metrics']['top1']:.2%} on 31 test "
                         f"images; the run is in {out}"]  # fmt: skip
    assert done.stderr == ""


@pytest.mark.slow
def test_in_a_terminal_there_is_a_progress_bar(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (30, 120))
    with subprocess.Popen(
        [*FOVEATE, *TRAIN, "--epochs=2", f"--out={tmp_path}"], stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        screen = b""
        while chunk := _read(ours):
            screen += chunk
    assert process.returncode == 0
    assert b"epoch 2/2: 100%" in screen
    assert b"train/loss=" in screen
    assert b"v_num" not in screen
    assert b"Lightning" not in screen
    assert b"warn" not in screen.lower()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # Linux says so when the other end is closed
        return b""


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*FOVEATE, *TRAIN, "--epochs=500", f"--out={tmp_path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("epoch   1/500")
        assert process.stdout.readline().startswith("epoch   2/500")  # the first epoch is then saved
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert errors.startswith("\nfoveate: saving at the end of this step; Ctrl-C again ends at once\n")
    assert "\nfoveate: interrupted; go on with: foveate train --config " in errors
    assert errors.count("\n") == 4
    assert not (tmp_path / "result.json").exists()

    again = shlex.split(errors.partition("go on with: foveate ")[2])
    assert "epochs: 500 there, 3 now" in fails([*again, "--epochs=3"], capsys)
    file = tmp_path / "config.yaml"  # a run of 500 epochs would take too long here
    file.write_text(file.read_text().replace("epochs: 500", "epochs: 4"))
    assert main(again) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert [row["epoch"] for row in result["history"]][:4] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train", "test_resnett"], "unknown model 'test_resnett'; did you mean 'test_resnet'"),
        (["train"], "no network given"),
        (["train", "test_resnet", "--epoch=3"], "--epoch; did you mean '--epochs'?"),
        (["train", "test_resnet", "--epochs=three"], "--epochs: Expected a int. Got value: three"),
        (["train", "test_resnet", "--lr"], "argument --lr: expected one argument"),
        (["train", "test_resnet", "--lr=-1"], "lr must be a finite number"),
        (["train", "test_resnet", "--sched=cosin"], "--sched: Expected a Literal['cosine',"),
        (["train", "test_resnet", "--resume=maybe"], "--resume"),
        (["train", "test_resnet", "--img_size=0"], "img_size must be at least 1; got 0"),
        (["train", "test_resnet", "--seed=99999999999999999999"], "seed must be at most 9223372036854775807, the larg"),
        (["train", "inception_v3", "--data_options", TINY], "inception_v3 does not take an image of 3×16×16: "),
        (["train", "test_resnet", "--model_args.act_layer=nope"], "model test_resnet cannot be built with "),
        (["cost", "test_resnet", "--model_args.num_classes=3"], "model_args cannot set num_classes"),
        (["cost", "test_resnet", "--model_args", "{at: [[1, 2], [3, 4]]}"], "--model_args: the value of at must be"),
        (["train", "test_resnet", "--model_args.kernel=3"], "model test_resnet does not take these arguments: "),
        (["train", "test_resnet", "--opt=sgdd"], "did you mean 'sgd'"),
        (["train", "test_resnet", "--opt=adahessian"], "opt=adahessian"),
        (["train", "test_resnet", "--data=nowhere"], "no data set is called 'nowhere'"),
        (["train", "test_resnet", "--device=tpu"], "device must be one of auto, cpu, cuda, mps"),
        (["train", "--config"], "--config: expected one argument"),
        (["train", "--config=nowhere.yaml"], "nowhere.yaml"),
        (["test"], "no checkpoint given"),
        (["test", "nowhere"], "there is no checkpoint nowhere"),
        (["test", "x", "--split=tset"], "--split: Expected a Literal['test', 'val', 'train']. Got value: tset"),
        (["compare"], "no networks given"),
        (["compare", "test_resnet", "test_resnet:drop"], "'test_resnet:drop' is not a network"),
        (["compare", "test_resnet", "--seed=3"], "--seed; did you mean '--seeds'?"),
        (["train", "test_resnet", "--zzz"], "unknown option --zzz"),
        (
            ["train", "test_resnet", "--img_size=abc"],
            "--img_size: Expected int or tuple[int, int] or null. Got value: abc",
        ),
        (["train", "test_resnet", "--scale=[a, b]"], "--scale: Expected tuple[float, float] or null. Got value: ['a'"),
        (["cost", "test_resnett"], "unknown model 'test_resnett'"),
        (["models", "no_such*"], "no network matches"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_wrong_is_named(
    argv: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = fails(argv, capsys)
    assert message in said
    assert said.count("\n") == 1 or not said.startswith("--")  # what is wrong with an option is said in one line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("argv", [[], ["trian"], ["--verison"]])
def test_an_unknown_command_is_named(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2
    errors = capsys.readouterr().err
    assert "foveate: error: " in errors
    assert ("'train'" in errors) == (argv == ["trian"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epochs: [", "parsing"),
        ("epochs: many", "--epochs: Expected a int. Got value: many"),
        ("epoch: 3", "'epoch'"),
        ("model: [a, b]", "--model: Expected a str"),
        ("just words", "config"),
        ("model: {class_path: os.system, init_args: {command: touch touched}}", "--model"),
        ("model_args: {x: {class_path: os.system, init_args: {command: touch touched}}}", "--model_args"),
        ("class_path: os.system\ninit_args: {command: touch touched}", "is not accepted"),
    ],
)
def test_a_bad_file_is_refused_and_names_no_code(
    content: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(content)
    assert message in fails(["train", "--config=config.yaml"], capsys)
    assert [entry.name for entry in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_no_field_of_a_configuration_names_code(command: str, tmp_path: Path) -> None:
    module = importlib.import_module(COMMANDS[command].module or f"foveate.commands.{command}")
    file = tmp_path / "config.yaml"
    for field in dataclasses.fields(getattr(module, f"{command.capitalize()}Config")):
        file.write_text(f"{field.name}: {{class_path: os.system, dict_kwargs: {{command: touch executed}}}}")
        with pytest.raises(ValueError, match=f"--{field.name}"):
            parse_command(command, [f"--config={file}"])
