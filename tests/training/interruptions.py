"""Drivers that interrupt trainings: by SIGKILL, SIGINT and SIGTERM, by files that cannot be written, by NaN.

Each takes a number of trials and a seed, does that many on a small run, and returns the counts of what happened; what
must not happen is in ``failures``. `make test` does a few, `make fuzz` many. The runs are real processes that execute
the command's own `main`; they come from a fork server that has imported everything, so that they start in no time.
"""

from __future__ import annotations

import csv
import functools
import json
import math
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tests.fuzz.outcome import Outcome, progress

from foveate.training.train_state import LAST, PREVIOUS, find_checkpoint, read_checkpoint

PRELOADED = [
    *("foveate.cli", "foveate.commands.train", "foveate.commands.compare"),
    # What a training imports late: in half of its time.
    *("lightning.pytorch", "torchmetrics.classification", "torch.utils.tensorboard", "sklearn.datasets"),
    *("scipy.stats", "jsonargparse", "foveate.training.fabric"),
]
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(PRELOADED)

DIGITS = "{size: 16, clutter: 1, length: 200, val_length: 40, test_length: 30}"
SETTINGS = ["--device=cpu", "--batch_size=16", "--epochs=2", "--warmup_epochs=0.5", f"--data_options={DIGITS}"]
VARIANTS = {
    "plain": ["conv_resnet_tiny"],
    "everything": [
        *("cram_resnet_tiny", "--equivariance=1", "--mixup=0.3", "--cutmix=1", "--ema_decay=0.9", "--accumulate=3"),
        *("--clip_grad=1", "--random_erasing=0.5", "--hflip=0.5", "--model_args={drop_rate: 0.3, drop_path_rate: 0.2}"),
    ],
    "segmentation": [
        *("cram_resnet_tiny", "--task=segmentation", "--dice=0.5", "--head_args={decoder_channels: [16, 8, 8]}"),
        *("--equivariance=1", "--ema_decay=0.9", "--accumulate=2", "--crop=resized", "--color_jitter=0.4"),
    ],
}
"""Networks and settings by which a run that goes on could betray that it was interrupted."""

SAVING, ENOUGH = 0.3, 100
"""The least share of kills during a save, of so many trials that it is no matter of chance."""


def _main(arguments: list[str], log: str, prepare: Callable[..., None] | None, details: tuple[Any, ...]) -> None:
    """Be the command: what a process of its own executes."""
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of the loader's workers, as outside of a fork server
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    if prepare is not None:
        prepare(*details)
    from foveate.cli import main

    code = main(arguments)
    sys.stdout.flush()
    sys.exit(code)


class Run:
    """A folder in which the command is executed, as often as it takes."""

    def __init__(self, folder: Path, variant: str = "plain", *, workers: int = 0, often: bool = True) -> None:
        self.out, self.log = folder / "run", folder / "log"
        folder.mkdir(parents=True)
        self.arguments = ["train", *VARIANTS[variant], *SETTINGS, f"--workers={workers}", f"--out={self.out}"]
        self.arguments += ["--checkpoint_updates=1"] if often else []

    def start(self, prepare: Callable[..., None] | None = None, *details: Any) -> Any:
        """Execute the command, resuming where there is something to resume, in a process that is returned."""
        resume = ["--resume"] if self.out.exists() and find_checkpoint(self.out) else []
        process = PROCESSES.Process(target=_main, args=([*self.arguments, *resume], str(self.log), prepare, details))
        process.start()
        return process

    def finish(self, prepare: Callable[..., None] | None = None, *details: Any) -> int:
        """Execute the command to its end; return the exit code."""
        process = self.start(prepare, *details)
        process.join()
        return process.exitcode

    def text(self) -> str:
        """Return what the command has printed so far."""
        return self.log.read_text() if self.log.exists() else ""

    def result(self) -> dict[str, Any]:
        """Return all that a finished run leaves and that must not depend on interruptions."""
        result = json.loads((self.out / "result.json").read_text())
        with (self.out / "logs" / "metrics.csv").open() as file:
            rows = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
        history = [{k: v for k, v in row.items() if k != "seconds"} for row in result["history"]]
        weights = {k: v.numpy().tobytes() for k, v in load_file(self.out / "model.safetensors").items()}
        best = torch.load(self.out / "best.ckpt", weights_only=True)["progress"]["epoch"]
        scores = result["correct" if "correct" in result else "scores"]
        return {"weights": weights, "history": history, "rows": rows, "scores": scores, "best": best}


def differences(run: Run, reference: dict[str, Any]) -> list[str]:
    """Return which parts of a finished run are not those of the uninterrupted one."""
    try:
        result = run.result()
    except OSError as error:
        return [f"not finished: {error}; {run.text()[-300:]}"]
    return [name for name, value in result.items() if value != reference[name]]


@functools.cache
def uninterrupted(folder: Path, variant: str) -> tuple[dict[str, Any], float]:
    """Return the result of the run that nothing interrupts, and the seconds that it takes.

    It is made once in a folder, so that several drivers can compare with it.
    """
    run = Run(folder, variant)
    start = time.perf_counter()
    assert run.finish() == 0, run.text()
    return run.result(), time.perf_counter() - start


def saving(run: Run, process: Any) -> bool:
    """Whether ``process`` is writing a checkpoint, or was when it was killed; what others left does not count."""
    return any(run.out.glob(f".*.ckpt.{process.pid}-*.tmp"))


def kill_trials(
    trials: int,
    seed: int,
    folder: Path,
    *,
    variants: tuple[str, ...] = tuple(VARIANTS),
    whole: Path | None = None,
) -> Outcome:
    """Kill runs at random moments, every other time during a save; look at the checkpoint; let them go on to the end.

    Every third run is killed several times, every other one has two workers. The runs that nothing interrupts are in
    the folder ``whole``.
    """
    outcome, rng = Outcome(trials=trials), random.Random(seed)
    references = {variant: uninterrupted((whole or folder / "whole") / variant, variant) for variant in variants}
    for trial in progress(range(trials), "kill"):
        variant = variants[trial % len(variants)]
        reference, seconds = references[variant]
        run = Run(folder / f"killed-{trial}", variant, workers=2 * (trial // 2 % 2))
        for _ in range(1 + (trial % 3 == 2) * rng.randrange(1, 4)):
            process = run.start()
            process.join(rng.uniform(0, seconds))
            while trial % 2 and process.is_alive() and not saving(run, process):
                time.sleep(0.0002)
            process.kill()
            process.join()
            outcome.count("kills", process.exitcode == -signal.SIGKILL)
            outcome.count("during a save", saving(run, process))
            if process.exitcode == 0:
                outcome.count("ended before the kill")
                break
            if run.out.exists() and find_checkpoint(run.out):
                try:
                    complaint = read_checkpoint(run.out)[1]  # the newest must do, without the one before it
                except ValueError as error:
                    complaint = str(error)
                outcome.check(not complaint, f"trial {trial}: {complaint}")
                outcome.count("checkpoint whole", not complaint)
        _end(run, reference, outcome, f"trial {trial}")
    for what, wanted in {"kills": trials, "during a save": int(SAVING * trials)}.items():
        outcome.check(outcome.counts[what] >= wanted or trials < ENOUGH, f"{what}: {outcome.counts[what]} of {wanted}")
    return outcome


def signal_trials(trials: int, seed: int, folder: Path, *, whole: Path | None = None) -> Outcome:
    """Send SIGINT and SIGTERM in turn, to the run and to its workers, as terminals do; nothing but that saves it.

    The signal arrives at a known update: the checkpoint must be of that one, in validation too.
    """
    outcome, rng = Outcome(trials=trials), random.Random(seed)
    reference, _ = uninterrupted((whole or folder / "whole") / "everything", "everything")
    for trial in progress(range(trials), "signal"):
        signum = (signal.SIGINT, signal.SIGTERM)[trial % 2]
        run = Run(folder / f"signal-{trial}", "everything", workers=2 * (trial // 2 % 2), often=False)
        update = rng.randrange(1, 9)  # 12 batches by threes, in each of 2 epochs: 8 updates
        in_validation = trial % 5 == 2
        code = run.finish(_signal_at, int(signum), 3 * update - rng.randrange(3), in_validation)
        outcome.check(code == 128 + signum, f"trial {trial}: exit code {code} after {signum.name}: {run.text()[-300:]}")
        outcome.check("go on with: foveate train" in run.text(), f"trial {trial}: does not say how to go on")
        saved = read_checkpoint(run.out)[0]["progress"]["updates"]
        due = 4 * math.ceil(update / 4) if in_validation else update
        outcome.check(saved == due, f"trial {trial}: signal in update {due}, saved in {saved}")
        outcome.count(signum.name)
        _end(run, reference, outcome, f"trial {trial}")
    return outcome


def disk_trials(trials: int, seed: int, folder: Path, *, whole: Path | None = None) -> Outcome:
    """Let writing fail at a random byte of a random file; the checkpoints must stay, and the run must go on.

    The kernel refuses to let a file grow beyond a limit, as on a full disk, and to root as well.
    """
    outcome, rng = Outcome(trials=trials), random.Random(seed)
    reference, _ = uninterrupted((whole or folder / "whole") / "everything", "everything")
    reference_run = (whole or folder / "whole") / "everything" / "run"
    for trial in progress(range(trials), "disk"):
        run = Run(folder / f"disk-{trial}", "everything", often=trial % 3 == 0)
        stopped = trial % 3 != 1  # else the training ends, and what cannot be written are the weights
        if stopped:
            run.finish(_signal_at, int(signal.SIGTERM), 3 * rng.randrange(1, 8), False)
        else:
            shutil.copytree(reference_run, run.out)
            for name in ("result.json", "model.safetensors"):
                (run.out / name).unlink()
        last = run.out / LAST
        before, size = last.read_bytes(), last.stat().st_size
        weights = (reference_run / "model.safetensors").stat().st_size
        # Whether the weights can be written is tried before anything else, so that less room is found out there.
        code = run.finish(_limit_files, rng.randrange(*((weights + 1, size) if stopped else (70_000, weights))))
        message = run.text().splitlines()[-1]
        outcome.check(code == 2, f"trial {trial}: exit code {code}: {message}")
        named = re.search(r"^foveate: error: .*File too large: '.*/(.*)'$", message)
        file = named[1] if named else "no file named"
        wanted = ("last.ckpt", "best.ckpt") if stopped else ("model.safetensors",)
        outcome.check(file in wanted, f"trial {trial}: message {message}")
        kept = [path.read_bytes() for path in (last, run.out / PREVIOUS) if path.exists()]
        outcome.check(before in kept, f"trial {trial}: the checkpoint changed")
        outcome.check(not list(run.out.rglob(".*.tmp")), f"trial {trial}: left temporary files")
        outcome.count(file)
        _end(run, reference, outcome, f"trial {trial}")
    return outcome


def _end(run: Run, reference: dict[str, Any], outcome: Outcome, name: str) -> None:
    """Let a run go on to the end, and compare it with the one that was not interrupted."""
    if not (run.out / "result.json").exists():
        code = run.finish()
        outcome.check(code == 0, f"{name}: exit code {code} when resumed: {run.text()[-300:]}")
    wrong = differences(run, reference)
    outcome.check(not wrong, f"{name}: not bit-equal: {wrong}")
    outcome.count("bit-equal", not wrong)
    shutil.rmtree(run.out.parent)


def _signal_at(signum: int, batch: int, in_validation: bool) -> None:
    """Send a signal to this process and its workers in a batch of training, or in the validation after it."""
    from foveate.training.module import TrainingModule

    forward, validate, seen = TrainingModule.forward, TrainingModule.validate, [0]

    def send() -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid, signum)
        os.kill(os.getpid(), signum)

    def counted_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen[0] += 1
        if seen[0] == batch and not in_validation:
            send()
        return forward(self, *args, **kwargs)

    def counted_validate(self: Any, *args: Any) -> None:
        if seen[0] >= batch and in_validation:
            send()
        validate(self, *args)

    TrainingModule.forward, TrainingModule.validate = counted_forward, counted_validate  # type: ignore[method-assign]


def _limit_files(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
