"""The guide in the documentation runs, from a trained network to an explained prediction."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import foveate

GUIDE = Path(__file__).parents[2] / "docs" / "explain.md"


@pytest.mark.slow
def test_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 5
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), namespace)
    guesses = capsys.readouterr().out.splitlines()[:3]
    assert all(re.fullmatch(r"\d: \d+\.\d%", guess) for guess in guesses)
    assert guesses[0].startswith(str(namespace["label"]))
    with Image.open("overlay.png") as picture:
        assert picture.size == (320, 320)
    assert Path("where.png").is_file()
    assert namespace["result"].images == 50
    assert foveate.load("copy").predict(namespace["image"]) == namespace["trained"].predict(namespace["image"])
    assert namespace["cam"].target == (3, 8)
    _, heads, *_, channels = namespace["gsa"].weights.values.shape
    assert namespace["output"].shape == (2, heads * channels)
