"""The studies as commands: each explains all of its options, and leaves the ``foveate`` command as it was."""

from __future__ import annotations

import dataclasses
import importlib
import re

import pytest

from foveate.cli import COMMANDS
from studies._command import STUDIES, main


@pytest.mark.parametrize("name", STUDIES)
def test_every_option_of_a_study_is_explained(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = dict(COMMANDS)
    with pytest.raises(SystemExit) as stopped:
        main(name, ["--help"])
    assert stopped.value.code == 0
    assert before == COMMANDS
    text = capsys.readouterr().out
    config = getattr(importlib.import_module(f"studies.{name}.command"), f"{name.capitalize()}Config")
    names = [field.name for field in dataclasses.fields(config)]
    assert STUDIES[name] in names
    for option in names:
        explanation = re.search(rf"\n  --{option}\b[^\n]*?(?:  |\n)(.*?)\(type:", text, re.S)
        assert explanation is not None, option
        assert len(explanation[1].split()) >= 3, option


def test_every_study_is_a_module_that_runs() -> None:
    for name in STUDIES:
        module = importlib.import_module(f"studies.{name}.__main__")
        assert module.__spec__ is not None
        assert callable(module.main)
