"""Several processes against one: gradients, figures, samples; and what happens when one of them ends."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from tests.training.interruptions import PRELOADED, PROCESSES, Run, _main, differences
from tests.training.processes import PATIENCE, ended, process_trials, shared_run, together, train_together
from tests.training.sharing import CPU, GRADIENTS, NETWORKS, difference, four_then_two, updates_by
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.distributed import TCPStore

import foveate
from foveate.data import EpochSampler
from foveate.training import process_group

pytestmark = pytest.mark.slow

SEVERAL = 4
"""Of 23 images one process has one less, of 3 one has none."""
IN_FLOAT32 = ("conv_resnet_tiny", "gsa_resnet_tiny")
CASES = (*IN_FLOAT32, "in parts", "accumulated", "damaged")

PROCESSES.set_forkserver_preload([*PRELOADED, "tests.training.sharing", "tests.training.test_distributed"])


@pytest.fixture(scope="module")
def updates(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """By the number of processes: for each of them, what came out."""
    return {size: updates_by(size, tmp_path_factory.mktemp(f"team-of-{size}"), IN_FLOAT32) for size in (1, SEVERAL)}


@pytest.mark.parametrize("case", CASES)
def test_the_gradients_are_those_of_one_process(updates: Any, case: str) -> None:
    alone = updates[1][0][case]["gradients"]
    assert all(gradient.any() for gradient in alone.values())
    for one in updates[SEVERAL]:
        assert difference(one[case]["gradients"], alone) < GRADIENTS
        assert one[case]["figures"]["train_loss"] == pytest.approx(
            updates[1][0][case]["figures"]["train_loss"], rel=1e-6
        )


@pytest.mark.parametrize("name", NETWORKS)
def test_they_differ_by_nothing_but_rounding(updates: Any, name: str) -> None:
    alone = updates[1][0][f"{name} in float64"]["gradients"]
    for one in updates[SEVERAL]:
        assert difference(one[f"{name} in float64"]["gradients"], alone) < 1e-14


@pytest.mark.parametrize("case", ["conv_resnet_tiny", "in parts", "damaged", "few"])
def test_each_image_counts_once(updates: Any, case: str) -> None:
    alone = updates[1][0][case]
    assert len(alone["labels"]) == {"damaged": 23 - 4, "few": 3}.get(case, 23)
    for one in updates[SEVERAL]:
        assert torch.equal(one[case]["labels"], alone["labels"])
        torch.testing.assert_close(one[case]["logits"], alone["logits"], rtol=1e-5, atol=1e-5)
        assert one[case]["figures"] == pytest.approx(alone["figures"], rel=1e-6)


def test_running_statistics_are_the_mean_over_the_processes(updates: Any) -> None:
    alone = updates[1][0]["statistics"]["buffers"]
    together = [one["statistics"]["buffers"] for one in updates[SEVERAL]]
    first = next(name for name in alone if name.endswith("running_mean"))
    for name in alone:
        assert all(torch.equal(one[name], together[0][name]) for one in together)
    # Behind the first layer each process's share has been normalised by itself.
    torch.testing.assert_close(together[0][first], alone[first])
    variance = first.replace("mean", "var")
    assert (together[0][variance] < alone[variance] * 1.002).all()


@pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 4), (1, 3), (3, 1)])
@pytest.mark.parametrize("size", [101, 96])
def test_another_number_of_ranks_loses_and_repeats_no_image(before: int, after: int, size: int) -> None:
    def sampler(rank: int, world_size: int) -> EpochSampler:
        return EpochSampler(size, training=True, seed=5, rank=rank, world_size=world_size)

    whole, seen = [key.item for key in sampler(0, 1)], []
    for rank in range(before):
        seen += [key.item for key in sampler(rank, before)][: 24 // before]
    for rank in range(after):
        resumed = sampler(rank, after)
        resumed.resume(0, 24)
        seen += [key.item for key in resumed]
        resumed.set_epoch(1)
        assert len(list(resumed)) == len(resumed)
    assert set(seen[:24]) == set(whole[:24])
    assert len(set(seen)) == len(seen) == size - size % after


def test_ranks_that_cannot_share_what_is_left_are_refused() -> None:
    with pytest.raises(ValueError, match="20 images cannot be shared by world_size=3 processes"):
        EpochSampler(100, training=True, rank=0, world_size=3).resume(0, 20)


@pytest.mark.parametrize(
    ("before", "after"), [pytest.param("ddp", "fsdp", marks=pytest.mark.exhaustive), ("fsdp", "ddp")]
)
def test_four_processes_go_on_as_two(before: str, after: str, tmp_path: Path) -> None:
    wrong, text = four_then_two(tmp_path, before, after)
    assert wrong == [0, 0, 0, 0]
    assert text.count("saving at the end of this step") <= 1  # the third was told to, the first speaks
    assert text.count("go on with: torchrun --nnodes=1 --nproc_per_node=4 -m foveate train") == 1


def test_a_killed_process_of_torchrun(tmp_path: Path) -> None:
    outcome = process_trials(1, 1, tmp_path / "trials", sizes=(2,))
    assert outcome.failures == []
    assert outcome.counts == {"kills": 1, "started anew": 1, "bit-equal": 1}


def test_parts_go_on_as_if_none_had_been_killed(tmp_path: Path) -> None:
    whole, run = (shared_run(tmp_path / name, strategy="fsdp", often=False) for name in ("whole", "killed"))
    for one in (whole, run):
        one.arguments.append("--epochs=2")
    run.arguments.append("--checkpoint_updates=5")  # the last before it is killed, in update 11, is of update 10
    assert train_together(whole, 2) == [0, 0]
    assert train_together(run, 2, _break, 1, 8 + 3, True) == [2, -signal.SIGKILL]
    assert train_together(run, 2) == [0, 0]
    assert differences(run, whole.result()) == []


def test_one_that_fails_ends_all(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", often=False)
    assert train_together(run, 2, _break, 1, 3, False) == [2, 2]
    assert "foveate: error: the images of process 1" in run.text()
    assert "foveate: error: process 0 of 2 lost the others: one of them has ended" in run.text()


def _break(rank: int, batch: int, killed: bool) -> None:
    """Let a process fail in a batch of training, or be killed in it."""
    from foveate.training.module import TrainingModule

    forward, seen = TrainingModule.forward, Counter()

    def failing(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen["batches"] += 1
        if seen["batches"] == batch and os.environ["RANK"] == str(rank):
            if killed:
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError(f"the images of process {rank}")
        return forward(self, *args, **kwargs)

    TrainingModule.forward = failing  # type: ignore[method-assign]


def test_settings_that_need_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="strategy=ddp is for several processes, and torchrun has started none"):
        process_group("ddp", CPU).__enter__()
    with pytest.raises(ValueError, match=r"strategy must be one of auto, ddp, fsdp; got 'dpp'; did you mean 'ddp'"):
        process_group("dpp", CPU).__enter__()  # type: ignore[arg-type]
    run = Run(tmp_path / "run", often=False)
    assert train_together(run, 3) == [2, 2, 2]
    assert (
        "batch_size=16 is of all 3 processes together, which cannot share it equally; give a multiple of 3, such as 15"
        in run.text()
    )
    run = Run(tmp_path / "parts", "everything", often=False)
    run.arguments.append("--strategy=fsdp")
    assert train_together(run, 2) == [2, 2]
    assert "strategy=fsdp does not go with equivariance; use strategy=ddp" in run.text()
    assert not run.out.exists()
    run = Run(tmp_path / "other", often=False)
    run.arguments.append("--sync_bn")
    assert run.finish() == 2
    assert "sync_bn needs GPUs" in run.text()


def test_sync_bn_takes_every_place_and_keeps_the_names() -> None:
    plain, synchronised = (timm.create_model("gsa_resnet_tiny") for _ in range(2))
    synchronised = convert_sync_batchnorm(synchronised)
    norms = [type(norm) for norm in synchronised.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
    assert all(issubclass(norm, nn.SyncBatchNorm) for norm in norms)
    assert len(norms) == sum(isinstance(norm, nn.BatchNorm2d) for norm in plain.modules()) > 10
    plain.load_state_dict(synchronised.state_dict())


def test_what_runs_in_one_process_refuses_several(tmp_path: Path) -> None:
    arguments = ["compare", "conv_resnet_tiny", f"--out={tmp_path / 'out'}"]
    assert ended(together(2, _main, arguments, str(tmp_path / "log"), None, ())) == [2, 2]
    assert "foveate compare runs in one process; start it without torchrun" in (tmp_path / "log").read_text()
    assert not (tmp_path / "out").exists()


def _several_trainings(folder: str, port: int) -> None:
    """Be a program that torchrun started: its own process holds the store, from one training to the next."""
    os.environ |= {"MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    digits = {"size": 16, "clutter": 1, "length": 24, "val_length": 20, "test_length": 21}
    how: dict[str, Any] = {"data_options": digits, "epochs": 1, "batch_size": 4, "device": "cpu"}
    how |= {"logger": [], "verbose": False}
    with suppress(ValueError):
        foveate.train("test_resnet", out=f"{folder}/wrong", lr=1e30, **how)
    for seed in range(3):
        foveate.train("test_resnet", seed=seed, out=f"{folder}/{seed}", **how)


def test_a_program_trains_several_networks(tmp_path: Path) -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    assert ended(together(2, _several_trainings, str(tmp_path), store.port), PATIENCE) == [0, 0]
    assert sorted(path.parent.name for path in tmp_path.glob("*/result.json")) == ["0", "1", "2"]
