"""Trainings by several processes: what each trial of `process_trials` does, and what the tests share with it.

Where torchrun itself is not what is tried, its processes come from a fork server that has imported everything, with the
variables that torchrun sets, so that they start in no time.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz.outcome import Outcome
from tests.training.interruptions import PROCESSES, Run, _main, differences

from foveate.training.train_state import find_checkpoint, read_checkpoint

KINDS = (("plain", "ddp"), ("plain", "fsdp"), ("everything", "ddp"))
"""Variants of runs, see `VARIANTS`, and how the processes share the work."""
SECONDS = 60
"""In which a job has to end of which a process was killed."""
PATIENCE = 600
"""For what may take as long as it takes, on a machine with other work."""


def together(size: int, function: Callable[..., None], *arguments: Any) -> list[Any]:
    """Start ``function`` in as many processes, as torchrun would have started them; return the processes."""
    port = free_port()
    processes = []
    for rank in range(size):
        process = PROCESSES.Process(target=_as_rank, args=(rank, size, port, function, arguments))
        process.start()
        processes.append(process)
    return processes


def _as_rank(rank: int, size: int, port: int, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    places = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
    addresses = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    elastic = {"TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_RESTART_COUNT": 0}
    os.environ.update({name: str(value) for name, value in {**places, **addresses, **elastic}.items()})
    os.fsync = os.fstat  # type: ignore[assignment]  # as in the process of the tests
    function(*arguments)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def ended(processes: list[Any], seconds: float = SECONDS) -> list[int | None]:
    """Wait for processes to end; return their exit codes, None of one that did not."""
    end = time.monotonic() + seconds
    for process in processes:
        process.join(max(0, end - time.monotonic()))
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes


def train_together(run: Run, size: int, prepare: Callable[..., None] | None = None, *details: Any) -> list[int | None]:
    """Execute the command of a run in as many processes, to its end; return their exit codes."""
    resume = ["--resume"] if run.out.exists() and find_checkpoint(run.out) else []
    return ended(together(size, _main, [*run.arguments, *resume], str(run.log), prepare, details), PATIENCE)


class Job:
    """torchrun, in a process of its own, with a run that several processes train together."""

    def __init__(self, run: Run, size: int, *, max_restarts: int) -> None:
        self.run = run
        options = [f"--nproc_per_node={size}", f"--max_restarts={max_restarts}", f"--master_port={free_port()}"]
        with run.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "torch.distributed.run", *options, "-m", "foveate", *run.arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def wait_for_update(self, update: int) -> None:
        """Wait until a checkpoint holds so many updates."""
        while find_checkpoint(self.run.out) is None or self.updates() < update:
            assert self.process.poll() is None, self.run.text()[-2000:]
            time.sleep(0.01)

    def updates(self) -> int:
        """Return how many updates the newest checkpoint holds."""
        return read_checkpoint(self.run.out)[0]["progress"]["updates"]

    def workers(self) -> list[int]:
        """Return the ids of the processes that train, in the order of the ranks."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return sorted(map(int, children))

    def end(self, seconds: float) -> int | None:
        """Wait for the job to end; return its exit code, None if it did not end in time."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self.process.kill()


def process_trials(trials: int, seed: int, folder: Path, *, sizes: tuple[int, ...] = (2, 3, 4)) -> Outcome:
    """Kill a process of a job at a random update; the job must end, or torchrun start it anew and end it bit-equal.

    In every third trial torchrun may not start it anew: the job must end within a minute and fail, and the same command
    with ``--resume`` goes on.
    """
    outcome, rng = Outcome(trials=trials), random.Random(seed)
    references: dict[tuple[str, str, int], dict[str, Any]] = {}
    for trial in range(trials):
        size, (variant, strategy) = sizes[trial % len(sizes)], KINDS[trial // len(sizes) % len(KINDS)]
        kind = variant, strategy, size
        if kind not in references:
            whole = shared_run(folder / f"whole-{len(references)}", variant, strategy, often=False)
            assert set(train_together(whole, size)) == {0}, whole.text()[-2000:]
            references[kind] = whole.result()
        run = shared_run(folder / f"killed-{trial}", variant, strategy)
        updates = rng.randrange(1, 2 * (8 if variant == "plain" else 3))
        name = f"trial {trial}, {size} processes, {variant}, {strategy}"
        _kill_trial(
            name, run, size, references[kind], updates, rng.randrange(size), (trial + trial // 3) % 3 != 1, outcome
        )
    return outcome


def shared_run(folder: Path, variant: str = "plain", strategy: str = "ddp", *, often: bool = True) -> Run:
    """Return a run with 8 batches an epoch, which 2, 3 and 4 processes can share."""
    run = Run(folder, variant, often=often)
    run.arguments += ["--batch_size=24", "--epochs=3", "--ema_decay=0.9", f"--strategy={strategy}"]
    return run


def _kill_trial(
    name: str,
    run: Run,
    size: int,
    reference: dict[str, Any],
    update: int,
    rank: int,
    restarts: bool,
    outcome: Outcome,
) -> None:
    """Kill a process after an update, and compare what comes of the run with the one that went through."""
    job = Job(run, size, max_restarts=int(restarts))
    job.wait_for_update(update)
    os.kill(job.workers()[rank], signal.SIGKILL)
    code = job.end(PATIENCE if restarts else SECONDS)
    outcome.count("kills")
    if restarts:
        outcome.check(code == 0, f"{name}: the job that was started anew ended with {code}: {run.text()[-500:]}")
        outcome.count("started anew", code == 0)
    else:
        outcome.check(code not in (0, None), f"{name}: the job without a process ended with {code}")
        outcome.count("ended", code not in (0, None))
        codes = train_together(run, size)
        outcome.check(set(codes) == {0}, f"{name}: exit codes {codes} when resumed: {run.text()[-500:]}")
    wrong = differences(run, reference)
    outcome.check(not wrong, f"{name}: not bit-equal: {wrong}")
    outcome.count("bit-equal", not wrong)
    shutil.rmtree(run.out.parent)


def note_samples(folder: str, signal_in: int = 0, rank: int = 0) -> None:
    """Let each process note the images that it trains on, and one of them be told to end in a batch of training."""
    from foveate.data import loading
    from foveate.training.module import TrainingModule

    given, forward, seen = loading._Transformed.__getitems__, TrainingModule.forward, Counter()

    def noted(self: Any, keys: list[Any]) -> Any:
        if self.seed is not None:
            with (Path(folder) / f"{os.getpid()}.jsonl").open("a") as file:
                file.write(json.dumps(keys) + "\n")
        return given(self, keys)

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen["batches"] += 1
        if seen["batches"] == signal_in and os.environ["RANK"] == str(rank):
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(self, *args, **kwargs)

    loading._Transformed.__getitems__ = noted  # type: ignore[method-assign]
    TrainingModule.forward = counted  # type: ignore[method-assign]
