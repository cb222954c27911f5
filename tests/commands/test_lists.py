"""Options that take several values."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.command_line import printed


@pytest.mark.parametrize(
    ("given", "taken"),
    [("[a, b]", ["a", "b"]), ("[exp]", ["[exp]"]), ("[exp]/model.safetensors", None), ("[x]y", None)],
)
def test_a_name_in_brackets_is_a_list_unless_there_is_such_a_file(
    given: str,
    taken: list[str] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "[exp]").mkdir()
    monkeypatch.chdir(tmp_path)
    config = printed(["explain", "a.jpg", "--checkpoint", given], capsys)
    assert config["checkpoint"] == ([given] if taken is None else taken)
