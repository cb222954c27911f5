"""The command line: what it accepts, and what it says, in one line and with exit code 2, when it cannot."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import pty
import resource
import shlex
import signal
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from foveate import __version__
from foveate.cli import main, parse_command
from foveate_cli import COMMANDS

TINY = "{size: 16, clutter: 1, length: 40, val_length: 20, test_length: 31}"
TRAIN = ["train", "test_resnet", "--data_options", TINY, "--batch_size=8", "--device=cpu"]
FOVEATE = [sys.executable, "-c", "import sys; from foveate.cli import main; sys.exit(main())"]


def fails(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the message of a command that must fail: exit code 2, nothing on stdout, no traceback on stderr."""
    assert main(argv) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("foveate: error: ")
    assert "Traceback" not in output.err
    return output.err.removeprefix("foveate: error: ")


def printed(argv: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return the configuration that ``--print_config`` shows."""
    with pytest.raises(SystemExit) as stopped:
        main([*argv, "--print_config"])
    assert stopped.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


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
def test_folders_that_cannot_be_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    for place in ("/proc/run", "/sys/run", str(tmp_path / "file"), str(tmp_path / "file" / "run")):
        for command in (TRAIN, ["compare", *TRAIN[1:]]):
            message = fails([*command, f"--out={place}"], capsys)
            assert message.startswith(f"cannot write to the output folder {place}: ")
            assert message.endswith("; choose another one\n")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_fills_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The kernel lets no file grow beyond the limit, as it lets none grow on a full disk, and that for root as well.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        before = fails([*TRAIN, f"--out={tmp_path}/before"], capsys)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
        during = fails([*TRAIN, f"--out={tmp_path}/during"], capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"cannot write to the output folder {tmp_path}/before: File too large" in before
    assert f"File too large: '{tmp_path}/during/model.safetensors'" in during
    assert not (tmp_path / "before").exists()
    assert not [path for path in (tmp_path / "during").rglob("*") if path.suffix in (".ckpt", ".tmp", ".safetensors")]


def test_data_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", "test_resnet", "--device=cpu", f"--out={tmp_path}/run"]
    (tmp_path / "empty").mkdir()
    assert "empty" in fails([*train, f"--data={tmp_path}/empty"], capsys)
    for split in ("train", "val"):
        for label in "ab":
            folder = tmp_path / "photos" / split / label
            folder.mkdir(parents=True)
            (folder / "words.jpg").write_text("a text file named .jpg")
    message = fails([*train, f"--data={tmp_path}/photos", "--batch_size=1", "--img_size=32"], capsys)
    assert "words.jpg: this is not an image in a format that is read" in message


def of_worker(what: str) -> RuntimeError:
    """Return what PyTorch raises where a worker has ended."""
    error = RuntimeError("DataLoader worker (pid(s) 3) exited unexpectedly")
    error.__cause__ = RuntimeError(f"DataLoader worker (pid 3) {what}")
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        of_worker("is killed by signal: Killed. "),
        RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nError: can't allocate memory"),
    ],
)
def test_a_lack_of_memory_is_no_traceback(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(config: Any) -> None:
        raise error

    monkeypatch.setattr("foveate.commands.train.run", fail)
    message = fails(["train", "test_resnet"], capsys)
    assert "memory ran out" in message
    assert "batch_size" in message
    in_worker = "Caught RuntimeError in DataLoader worker process 0.\na mistake"
    for mistake in (RuntimeError("a mistake"), RuntimeError(in_worker), of_worker("is killed by signal: Aborted")):
        error = mistake
        with pytest.raises(RuntimeError, match=r"a mistake|exited unexpectedly"):
            main(["train", "test_resnet"])


def test_debugging_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FOVEATE_DEBUG", "1")
    assert main(["train", "test_resnett"]) == 2
    errors = capsys.readouterr().err
    assert "Traceback (most recent call last)" in errors
    assert errors.splitlines()[-1].startswith("foveate: error: unknown model")


@pytest.mark.slow
def test_a_reader_that_ended_by_the_same_ctrl_c_hinders_nothing(tmp_path: Path) -> None:
    """As under ``foveate train … 2>&1 | tee log``: Ctrl-C ends tee first."""
    command = f"""{sys.executable} -c '
import os, signal, sys
from foveate import cli
from foveate.training.module import TrainingModule
forward = TrainingModule.forward
def interrupted(self, *arguments, **keywords):
    end, broken = os.pipe()
    os.close(end)
    os.dup2(broken, 1), os.dup2(broken, 2)
    os.kill(os.getpid(), signal.SIGINT)
    return forward(self, *arguments, **keywords)
TrainingModule.forward = interrupted
os._exit(cli.main(sys.argv[1:]))
' train test_resnet --device=cpu --epochs=1 --batch_size=16 --out={tmp_path / "run"}"""
    digits = "--data_options={size: 16, clutter: 1, length: 64, val_length: 20, test_length: 20}"
    done = subprocess.run([*shlex.split(command), digits], capture_output=True, timeout=120)
    assert done.returncode == 130, done.stderr
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["progress"]["updates"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_no_field_of_a_configuration_names_code(command: str, tmp_path: Path) -> None:
    module = importlib.import_module(COMMANDS[command].module or f"foveate.commands.{command}")
    file = tmp_path / "config.yaml"
    for field in dataclasses.fields(getattr(module, f"{command.capitalize()}Config")):
        file.write_text(f"{field.name}: {{class_path: os.system, dict_kwargs: {{command: touch executed}}}}")
        with pytest.raises(ValueError, match=f"--{field.name}"):
            parse_command(command, [f"--config={file}"])
