"""Commands in this process: one that must fail, one that must print JSON."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import yaml

from foveate.cli import main

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
