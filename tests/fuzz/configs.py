"""Wrong command lines and configuration files: exit code 2, the field named, no traceback, nothing run or written."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import os
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from foveate.cli import main
from foveate.io import NetworkMeta, save_network
from foveate.models.building import build_network
from foveate_cli import COMMANDS
from tests.fuzz.outcome import Outcome, progress

TINY = "{size: 16, clutter: 1, length: 40, val_length: 20, test_length: 31}"
NOWHERE = "/proc/nowhere"
"""Nothing can be written there: a command of which everything else is right ends with this, having computed nothing."""
WHOLE: dict[str, list[str]] = {
    "train": ["test_resnet", "--data_options", TINY, "--batch_size=8", "--out", NOWHERE],
    "compare": ["test_resnet", "--data_options", TINY, "--batch_size=8", "--out", NOWHERE],
    "test": ["{run}", "--data_options", TINY, "--json", NOWHERE],
    "score": ["{run}", "--data_options", TINY, "--out", NOWHERE],
    "explain": ["{image}", "--checkpoint={run}", "--out", NOWHERE],
    "stability": ["{run}", "--data=digits", "--data_options", TINY, "--out", NOWHERE],
    "equivariance": ["{run}", "--data=digits", "--data_options", TINY, "--out", NOWHERE],
    "bench": ["expatt", "--out", NOWHERE],
    "cost": ["test_resnet", "--img_size=32"],
    "models": [],
}
"""For each command whose values are tried, arguments that are right."""
BY_TYPE = {
    "int": ["three", "1.5", "[1]", "{a: 1}", "1e3", "0x1g", ".nan"],
    "float": ["many", "[1]", "{a: 1}", "1,5", "--"],
    "bool": ["maybe", "2", "[true]", "{}"],
    "Literal": ["nope", "[]", "1e9", "{}"],
    "dict": ["[1, 2]", "3", "words", "{x: {class_path: os.system, init_args: {command: touch executed}}}"],
    "list[float]": ["{a: 1}", "[many]"],
    "img_size": ["[1]", "[1, 2, 3]", "wide", "{a: 1}"],
}
BY_VALUE = {"int": ["-1", "-1000000000000000000000000000000"], "float": [".nan", ".inf", "-.inf", "-1e308"]}


@dataclass(frozen=True)
class Trial:
    """Arguments, a configuration file, and what a message must name one of."""

    what: str
    argv: list[str]
    names: tuple[str, ...]
    config: bytes | None = None


def run(trials: int, seed: int) -> Outcome:
    """Try ``trials`` wrong command lines, spread over all commands and all ways to be wrong."""
    outcome = Outcome(trials=trials, counts={"exit code 2, the field named": 0, "tracebacks": 0})
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        places = _places(Path(name))
        for index in progress(range(trials), "configs"):
            rng = random.Random(f"{seed}-{index}")
            command = list(COMMANDS)[index % len(COMMANDS)]
            ways = [_wrong_type, _wrong_file, _unknown, *([_wrong_value, _wrong_value] if command in WHOLE else [])]
            trial = rng.choice(ways)(command, rng, places)
            before = sorted(Path.cwd().rglob("*"))
            if fault := _fault(trial, outcome):
                outcome.failures.append(f"{index}: {trial.what}: {' '.join(trial.argv)[:300]}: {fault}")
            new = [str(path) for path in Path.cwd().rglob("*") if path not in before and path.name != "config.yaml"]
            if new or os.path.exists(NOWHERE):
                outcome.failures.append(f"{index}: {trial.what}: {' '.join(trial.argv)[:300]}: wrote {new}")
    return outcome


def _fault(trial: Trial, outcome: Outcome) -> str:
    Path("config.yaml").unlink(missing_ok=True)
    if trial.config is not None:
        Path("config.yaml").write_bytes(trial.config)
    said, printed = io.StringIO(), io.StringIO()
    code: Any = None
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
            code = main(trial.argv)
    except SystemExit as stopped:
        code = stopped.code
    except BaseException as error:
        outcome.count("tracebacks")
        return f"raised {error!r}"
    message = said.getvalue()
    if "Traceback" in message:
        outcome.count("tracebacks")
    if code != 2:
        return f"exit code {code}: {message[-200:]}{printed.getvalue()[-200:]}"
    if "foveate: error: " not in message and "foveate " not in message:
        return f"the message is not ours: {message[-200:]}"
    if not any(name in message for name in trial.names):
        return f"none of {', '.join(trial.names)} is named: {message[-300:]}"
    outcome.count("exit code 2, the field named")
    return ""


def _places(folder: Path) -> dict[str, str]:
    """Write what commands are to be given: a checkpoint, and an image."""
    torch.manual_seed(0)
    names = [str(digit) for digit in range(10)]
    model, kwargs = build_network("cram_resnet_tiny", num_classes=10, img_size=(16, 16))
    preparation: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_pct": 1.0, "interpolation": "bilinear"}
    meta = NetworkMeta(model="cram_resnet_tiny", kwargs=kwargs, classes=names, img_size=(16, 16), **preparation)
    (folder / "run").mkdir()
    save_network(folder / "run" / "model.safetensors", model, meta)
    Image.new("RGB", (9, 7), "red").save(folder / "image.png")
    return {"run": str(folder / "run"), "image": str(folder / "image.png")}


def _fields(command: str) -> list[Any]:
    module = importlib.import_module(COMMANDS[command].module or f"foveate.commands.{command}")
    return list(dataclasses.fields(getattr(module, f"{command.capitalize()}Config")))


def _kind(field: Any) -> str:
    kind = field.type.split(" | ")[0].removeprefix("Optional[")
    if field.name == "img_size":
        return "img_size"
    if kind.startswith("Literal") or kind in ("Precision", "Schedule", "NonFinite", "Fill"):
        return "Literal"
    return kind if kind in BY_TYPE else kind.partition("[")[0]


def _wrong_type(command: str, rng: random.Random, places: dict[str, str]) -> Trial:
    """Give a field a value of another type, in the command line or in a file."""
    fields = [field for field in _fields(command) if _kind(field) in BY_TYPE]
    if not fields:
        return _unknown(command, rng, places)
    field = rng.choice(fields)
    value = rng.choice(BY_TYPE[_kind(field)])
    # A keyword of a network or a set may be anything; that networks are missing is then found first.
    named = (field.name, "no networks given") if "Option" in str(field.type) else (field.name,)
    if rng.random() < 0.5:
        return Trial("wrong type", [command, f"--{field.name}={value}"], named)
    config = f"{field.name}: {value}\n".encode()
    return Trial("wrong type in a file", [command, "--config=config.yaml"], (*named, "config.yaml"), config)


def _wrong_value(command: str, rng: random.Random, places: dict[str, str]) -> Trial:
    """Give a field of a command that is right otherwise a number out of every range."""
    fields = [field for field in _fields(command) if _kind(field) in BY_VALUE]
    if not fields:
        return Trial("no such", [command, "no_such_*"], ("no_such_",))
    field = rng.choice(fields)
    value = rng.choice(BY_VALUE[_kind(field)])
    whole = [
        argument.replace("{run}", places["run"]).replace("{image}", places["image"]) for argument in WHOLE[command]
    ]
    return Trial("wrong value", [command, *whole, f"--{field.name}={value}"], (field.name,))


def _unknown(command: str, rng: random.Random, places: dict[str, str]) -> Trial:
    """Give what there is not: an option, a command, a keyword of the network, words."""
    noise = "".join(rng.choice("abc-_=.[]{}:,'\"\\ \t\n\0é漢%$!&*?") for _ in range(rng.randint(1, 12)))
    field = rng.choice(_fields(command)).name
    trials: list[Callable[[], Trial]] = [
        lambda: Trial("unknown option", [command, f"--no_{field}=1"], (f"no_{field}",)),
        lambda: Trial("option cut short", [command, f"--{field[:-1]}"], (field[:-1],)),
        lambda: Trial("option without its value", [command, f"--{field}.class_path=os.system"], (field, "class_path")),
        lambda: Trial(
            "noise for an option",
            [command, f"--{noise}x"],
            (
                noise,
                "option",
                "argument",
                f"{COMMANDS[command].positional}=",
                f"{COMMANDS[command].positional} must be",
            ),
        ),
        lambda: Trial("noise for a command", [f"x{noise}", command], ("COMMAND",)),
        lambda: Trial("a key below a field", [command, f"--{field}.init_args.x=1"], (field, "init_args")),
        lambda: Trial("no configuration file", [command, "--config=nowhere.yaml"], ("nowhere.yaml",)),
        lambda: Trial("configuration in a folder", [command, "--config=/proc"], ("/proc", "config")),
    ]
    return rng.choice(trials)()


def _wrong_file(command: str, rng: random.Random, places: dict[str, str]) -> Trial:
    """Give a configuration file that is none, names code, or has what there is not."""
    field = rng.choice(_fields(command)).name
    files: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
        "not YAML": ("a: [", ("config",)),
        "tabs": ("\ta: 1", ("config",)),
        "a list": ("[1, 2]", ("config",)),
        "words": ("just words", ("config",)),
        "an unknown key": ("no_such_key: 1", ("no_such_key",)),
        "bytes": (rng.randbytes(rng.randint(20, 200)), ("config",)),
        "zeros": (b"\0" * 50, ("config",)),
        "UTF-16": ("epochs: 1".encode("utf-16"), ("config",)),
        "deep": ("[" * 3000, ("config",)),
        "deep keys": (f"{field}: " + "{a: " * 400 + "1" + "}" * 400, (field, "config")),
        "two documents": (f"{field}: 1\n---\n{field}: 2\n", (field, "config")),
        "a Python object": (f"{field}: !!python/object/apply:os.system ['touch executed']", (field, "config")),
        "a Python name": (f"{field}: !!python/name:os.system", (field, "config")),
        "a Python module": ("!!python/module:this", ("config",)),
        "a tag": (f"{field}: !system 'touch executed'", (field, "config")),
        "a class": (f"{field}: {{class_path: subprocess.Popen, init_args: {{args: [touch, executed]}}}}", (field,)),
        "a class for all": (
            "class_path: subprocess.Popen\ninit_args: {args: [touch, executed]}",
            ("class_path", "init_args"),
        ),
        "a class by keywords": (
            f"{field}: {{class_path: os.system, dict_kwargs: {{command: touch executed}}}}",
            (field,),
        ),
    }
    what = rng.choice(list(files))
    content, names = files[what]
    return Trial(
        f"file: {what}",
        [command, "--config=config.yaml"],
        names,
        content if isinstance(content, bytes) else content.encode(),
    )
