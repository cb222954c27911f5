"""Experiments made again: the commands are those of the recipes, and what has to be fetched is said first."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import foveate_cli
from foveate.cli import parse_command
from studies import rerun
from studies._command import parse_study, split_imports
from tests.recipes.files import ROOT, TEXTS, header

FETCHED = ["--cifar100", "cifar100", "--bccd", "bccd"]


@pytest.mark.parametrize("name", rerun.EXPERIMENTS)
def test_its_commands_are_those_in_the_headers(name: str) -> None:
    *before, tables = rerun.commands(name, Path("SOURCE"))
    wanted = rerun.EXPERIMENTS[name]
    said = [line for recipe in wanted.recipes for line in header(f"recipes/{recipe}.yaml")["command"].splitlines()]
    for command in before:
        words = [word for word in command[1:] if word != "-m"]
        if words[0] != "foveate":
            source = words.index("SOURCE")
            assert any(
                line.split()[1:2] == words[:1] and set(words[source + 1 :]) <= set(line.split()) for line in said
            )
            continue
        assert " ".join(words) in said
        parsed = foveate_cli.parse(words[1:])
        options = [str(ROOT / word) if word.startswith("recipes/") else word for word in parsed.arguments]
        parse_command(parsed.command, options)
    study = tables[2].removeprefix("studies.")
    imports, arguments = split_imports(tables[3:])
    assert imports == list(wanted.imports)
    assert " ".join(["python", *tables[1:]]) in TEXTS[f"recipes/{wanted.evidence}.yaml"]
    options = [str(ROOT / word) if word.startswith("recipes/") else word for word in arguments]
    config = parse_study(study, options)
    assert config.out == f"results/{name}"
    assert config.collect == [f"runs/{recipe}" for recipe in wanted.recipes]
    trained = {
        network for recipe in wanted.recipes for network in yaml.safe_load(TEXTS[f"recipes/{recipe}.yaml"])["models"]
    }
    named = {network for claim in (*config.claims, *getattr(config, "explore", [])) for network in claim.split(" - ")}
    assert named <= trained


def test_what_is_missing_is_listed_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a command was run"))
    (tmp_path / "cifar100").mkdir()
    for names, there, missing in (
        ([], ["cifar100"], {"tiny-imagenet", "flowers", "camvid", "bccd"}),
        (["cells", "streets"], ["cifar100"], {"camvid", "bccd"}),
    ):
        given = [word for name in there for word in (f"--{name}", str(tmp_path / name))]
        with pytest.raises(SystemExit) as stopped:
            rerun.main([*names, *given])
        said = capsys.readouterr().err.partition("error:")[2]
        assert stopped.value.code == 2
        assert {name for name in rerun.SOURCES if f"--{name} " in said} == missing
    with pytest.raises(SystemExit):
        rerun.main(["no_such"])


def test_experiments_are_run_one_after_the_other_until_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in FETCHED[1::2]:
        (tmp_path / folder / "train").mkdir(parents=True)
    ran: list[str] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rerun, "ROOT", tmp_path)

    class Command:
        def __init__(self, words: list[str], **_: Any) -> None:
            ran.append(" ".join(words[1:]))

        def wait(self) -> int:
            return int(len(ran) == 5)

    monkeypatch.setattr(subprocess, "Popen", Command)
    assert rerun.main(["cifar100", "cells", *FETCHED]) == 1
    assert [line.split()[0 if line.startswith("recipes") else 1] for line in ran] == [
        "recipes/cifar100/prepare.py",
        "foveate",
        "foveate",
        "studies.evidence",
        "foveate",
    ]
    assert str(tmp_path / "cifar100") in ran[0]
    assert (tmp_path / "data" / "bccd" / "train").is_dir()
    assert not list((tmp_path / "data").glob(".*"))


@pytest.mark.parametrize(
    ("signals", "ended"), [([signal.SIGINT, signal.SIGINT], 0), ([signal.SIGTERM], 1)], ids=["impatient", "told to end"]
)
def test_a_signal_leaves_a_command_the_time_to_save(
    signals: list[int], ended: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, terminated = list(signals), []

    class Saving:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def terminate(self) -> None:
            terminated.append(True)

        def wait(self) -> int:
            if left:
                signal.raise_signal(left.pop())
            return 130

    (tmp_path / "bccd").mkdir()
    monkeypatch.setattr(rerun, "ROOT", tmp_path)
    monkeypatch.setattr(subprocess, "Popen", Saving)
    assert rerun.main(["cells", "--bccd", str(tmp_path / "bccd")]) == 130
    assert left == []
    assert len(terminated) == ended
