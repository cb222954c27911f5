"""What computes: kernels that are missing are said to be, and a device without kernels gets PyTorch's operators."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from foveate import functional as FA
from foveate import kernels
from foveate._devices import on_device
from foveate.cli import main
from foveate.kernels import cpu
from foveate.models import missing_kernels
from foveate.training import check_device

TINY = ["--data_options", "{size: 16, clutter: 1, length: 8, val_length: 4, test_length: 5}", "--batch_size=8"]


@pytest.fixture
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cpu, "library", lambda *_: None)
    missing_kernels._warn_once.cache_clear()
    yield
    missing_kernels._warn_once.cache_clear()


@pytest.mark.slow
@pytest.mark.usefixtures("without_kernels")
def test_missing_kernels_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    argv = ["--epochs=1", "--device=cpu", *TINY]
    assert main(["train", "cram_resnet_tiny", *argv, f"--out={tmp_path}/cram"]) == 0
    assert not caplog.records  # which has no kernels anywhere
    for seed in (0, 1):
        assert main(["train", "gsa_resnet_tiny", *argv, f"--seed={seed}", f"--out={tmp_path}/{seed}"]) == 0
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, missing_kernels.NO_KERNELS)
    ]


@pytest.mark.usefixtures("without_kernels")
def test_what_was_switched_off_is_not_missed(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("FOVEATE_FUSED", "0")
    missing_kernels.warn_of_missing_kernels(torch.device("cpu"), timm.create_model("gsa_resnet_tiny"))
    assert not caplog.records
    assert FA.fused_kernels() == {}


def version_lines(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    assert main(["--version", "--verbose"]) == 0
    return {line.split("  ")[0]: line.split("  ")[-1].strip() for line in capsys.readouterr().out.splitlines()}


def test_the_version_says_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    lines = version_lines(capsys)
    assert (lines["torch"], lines["timm"]) == (torch.__version__.split("+")[0], timm.__version__)
    assert lines["threads"] == str(torch.get_num_threads())
    best = next((name for name in cpu.INSTRUCTION_SETS if cpu.library() is not None and name in cpu._runnable()), None)
    assert lines["cpu kernels"] == (best or "none")


@pytest.mark.usefixtures("without_kernels")
def test_the_version_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert version_lines(capsys)["cpu kernels"] == "none"


def test_a_mac_gpu_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device=mps"):
        check_device("mps", "32-true")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert check_device("mps", "32-true") == torch.device("mps")
    assert check_device("cpu", "32-true") == torch.device("cpu")
    assert check_device("auto", "32-true").type in ("cpu", "cuda")
    with pytest.raises(ValueError, match="precision"):
        check_device("mps", "16-mixed")


class Watching(TorchDispatchMode):
    """Notes the operators that ran, and refuses what MPS refuses: numbers in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.ran.add(str(func))
        if isinstance(result, Tensor) and result.dtype == torch.float64:
            raise TypeError(f"{func} gives float64")
        return result


@pytest.mark.parametrize("name", ["gsa", "aa", "expatt", "cram", "positionwise"])
def test_no_network_needs_float64(name: str) -> None:
    """On the meta device, which has no kernels either, and no numbers."""
    model = timm.create_model(f"{name}_resnet_tiny", num_classes=7).to("meta")
    with Watching() as watching:
        model(torch.empty(2, 3, 32, 40, device="meta")).sum().backward()
    assert "aten.convolution.default" in watching.ran
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_device_without_kernels_gets_operators() -> None:
    with FakeTensorMode():  # tensors that say they are on a device, which need not be there
        query, value = (torch.empty(1, 2, 5, 7, channels, device="mps") for channels in (3, 4))
        assert value.device.type == "mps"
        assert kernels.axial(query, value, None) is None
        assert kernels.content(query, value, None) is None
        for demand in (lambda: kernels.axial(query, value, True), lambda: kernels.content(query, value, True)):
            with pytest.raises(ValueError, match="no kernels"):
                demand()


class Moving(torch.nn.Linear):
    """Notes where it is moved to."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.moves: list[torch.device] = []

    def to(self, device: torch.device) -> Moving:  # type: ignore[override]
        self.moves.append(device)
        return self


def test_a_network_goes_back_to_its_device_whatever_happens() -> None:
    module = Moving()
    with pytest.raises(KeyboardInterrupt), on_device(module, torch.device("meta")):
        raise KeyboardInterrupt
    assert module.moves == [torch.device("meta"), torch.device("cpu")]


def test_triton_that_compiles_nothing_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from triton.runtime import driver

    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(driver, "_active", Broken())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    kernels._triton_compiles.cache_clear()
    try:
        for _ in range(2):
            assert "cuda" not in FA.fused_kernels()
    finally:
        kernels._triton_compiles.cache_clear()
    assert caplog.text.count("Failed to find C compiler") == 1
