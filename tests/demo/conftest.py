"""One server for all tests of the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from foveate.io import NetworkMeta, save_network
from foveate.models.building import build_network


class Server(NamedTuple):
    process: subprocess.Popen[str]
    url: str
    temporary: Path
    """The only folder in which it may leave anything."""
    printed: list[str]
    """The lines that it has written since it answers."""


@pytest.fixture(scope="session")
def networks() -> list[str]:
    """Checkpoints for the page; none are those that come with the package."""
    return []


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One checkpoint."""
    return save(tmp_path_factory.mktemp("checkpoint"), "cram_resnet_tiny")


def save(folder: Path, name: str) -> Path:
    """Write the checkpoint of a network whose weights are random, all of them."""
    torch.manual_seed(0)
    model, kwargs = build_network(name, num_classes=10, img_size=(32, 32))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.add_(torch.randn_like(parameter), alpha=1.0 if "proj" in key else 0.1)
    meta = NetworkMeta(
        model=name,
        kwargs=kwargs,
        classes=list("0123456789"),
        img_size=(32, 32),
        mean=(0.14,) * 3,
        std=(0.31,) * 3,
        crop_pct=1.0,
        interpolation="bilinear",
    )
    save_network(folder / "model.safetensors", model, meta)
    return folder / "model.safetensors"


def start(arguments: list[str], temporary: Path, **environment: str) -> Server:
    """Start `foveate demo` on a free port, and wait until it answers."""
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys, foveate.cli; sys.exit(foveate.cli.main())", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary), **environment},
    )
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if found := re.search(r"page is at (http://\S+)", line):
            # Read on, so that it never waits for a reader.
            printed: list[str] = []
            threading.Thread(target=printed.extend, args=[process.stdout], daemon=True).start()
            return Server(process, found[1], temporary, printed)
    raise AssertionError(f"the server ended with code {process.wait()}:\n{said}")


@pytest.fixture(scope="session")
def server(networks: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The page with `networks`, as `foveate demo` serves it."""
    found = start([f"--checkpoint={path}" for path in networks], tmp_path_factory.mktemp("temporary"))
    try:
        yield found
    finally:
        found.process.terminate()
        found.process.wait(timeout=20)
