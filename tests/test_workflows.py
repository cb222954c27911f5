"""What a public host would run: well-formed, with no more rights than it needs, and of things that are there."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_examples import targets

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAY_WRITE = {"publish": {"id-token"}, "docs": {"id-token", "pages"}}


def load(file: Path) -> dict[str, Any]:
    workflow = yaml.safe_load(file.read_text(encoding="utf-8"))
    workflow["on"] = workflow.pop(True)  # `on`, as YAML 1.1 reads it
    return workflow


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_there_is_one_for_changes_and_one_for_releases() -> None:
    found = {file.stem: load(file) for file in WORKFLOWS}
    assert found.keys() == {"ci", "release"}
    assert found["ci"]["on"].keys() == {"push", "pull_request"}
    assert found["release"]["on"] == {"push": {"tags": ["v*"]}}
    assert list(found["release"]["jobs"]) == ["build", "try", "test", "publish", "docs"]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_what_is_made_can_be_made(file: Path) -> None:
    lines = [line for step in steps(load(file)) for line in step.get("run", "").splitlines()]
    made = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("make ")]
    named = {word for words in made for word in words if "=" not in word}
    assert named
    assert named <= targets()
    variables = {word.partition("=")[0] for words in made for word in words if "=" in word}
    assert all(re.search(rf"^{name} \?=", (ROOT / "Makefile").read_text("utf-8"), re.M) for name in variables)


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_rights_are_the_least(file: Path) -> None:
    workflow = load(file)
    assert set(workflow["permissions"].values()) <= {"read"}
    for name, job in workflow["jobs"].items():
        writes = {right for right, level in job.get("permissions", {}).items() if level != "read"}
        assert writes == MAY_WRITE.get(name, set())
        assert job["timeout-minutes"] <= 60
        needed = job.get("needs", [])
        assert set([needed] if isinstance(needed, str) else needed) <= workflow["jobs"].keys()


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_actions_are_of_a_named_version(file: Path) -> None:
    used = [step["uses"] for step in steps(load(file)) if "uses" in step]
    assert used
    assert [action for action in used if not re.fullmatch(r"(actions|pypa)/[\w-]+@(release/)?v\d+", action)] == []


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_every_python_that_is_promised_is_tried(file: Path) -> None:
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["classifiers"]
    promised = [found[1] for line in classifiers if (found := re.search(r":: (3\.\d+)$", line))]
    matrices = [job["strategy"]["matrix"] for job in load(file)["jobs"].values() if "strategy" in job]
    assert matrices == [{"python": promised}]
