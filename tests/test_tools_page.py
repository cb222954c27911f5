"""The page on other tools: each of its blocks runs, and what it makes has its attention."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from foveate.models.inspection import attention_modules

PAGE = Path(__file__).parents[1] / "docs" / "tools.md"


@pytest.mark.filterwarnings("ignore")
def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    found: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), found)
    assert [tuple(x.shape[1:]) for x in found["maps"]] == [(96, 16, 24), (192, 8, 12)]
    assert found["larger"].layer1[0].conv2.feat_size == (96, 96)
    assert found["segmenter"].encoder.model.layer1[0].conv2.feat_size == (24, 32)
    for name, modules in (("segmenter", 8), ("classifier", 1), ("detector", 1), ("again", 4)):
        assert len(attention_modules(found[name])) == modules, name
    assert found["explanation"].logits is None
    assert found["explanation"].output.shape == (1, 11, 96, 128)
    weights = found["network"].state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in found["again"].state_dict().items())


@pytest.mark.filterwarnings("ignore")
def test_the_first_lines_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 50), "grey").save("photo.jpg")
    found: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", (PAGE.parents[1] / "README.md").read_text("utf-8"), re.DOTALL):
        exec(compile(block, "README.md", "exec"), found)
    assert list(attention_modules(found["network"])) == ["layer3.attention"]
    assert torch.allclose(found["attention"](torch.zeros(1, 64, 14, 14)), torch.zeros(1, 64, 14, 14), atol=1e-6)
    assert Image.open("where.png").size[0] > 0
