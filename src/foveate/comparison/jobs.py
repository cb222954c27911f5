"""Parallel trainings, each in a process of its own.

A worker trains one configuration after the other, which it reads from stdin; it answers on stdout, in lines of JSON.
It is in a process group of its own, so that Ctrl-C reaches it through the comparison, once, whoever sent it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TextIO

from foveate._extras import MissingExtraError
from foveate._imports import import_again
from foveate._memory import out_of_memory
from foveate._signals import raising_sigterm
from foveate.io.streams import tolerate_encodings
from foveate.training import TrainConfig, train_network
from foveate.training.loop import SHOWS_BARS

__all__ = ["Finished", "JobError", "serve", "side_by_side"]


PATIENCE = 10.0
"""Seconds after which a worker that was told to end is told again; one that is about to end is not hurried by it."""


class Finished(NamedTuple):
    """A finished run (``epoch`` is None), or a finished epoch of one.

    Attributes:
        run: Number of the run among those that were given.
        epoch: Number of the epoch, from 1.
    """

    run: int
    epoch: int | None


class JobError(ValueError):
    """A run failed; ``index`` is its number."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index = index


def side_by_side(configs: Sequence[TrainConfig], jobs: int) -> Generator[Finished]:
    """Train ``configs``, ``jobs`` at a time, and yield an event for each finished epoch and run.

    However this ends, no process is left, and runs that are not finished can be resumed.

    Raises:
        JobError: A run failed, or the process that trained it has ended.
        Interrupted: Ctrl-C or SIGTERM; the runs are saved.
    """
    waiting: queue.SimpleQueue[tuple[int, TrainConfig]] = queue.SimpleQueue()
    for entry in enumerate(configs):
        waiting.put(entry)
    events: queue.SimpleQueue[tuple[int, dict[str, Any]]] = queue.SimpleQueue()
    workers = [_Worker(configs[0].threads) for _ in range(min(jobs, len(configs)))]
    for worker in workers:
        threading.Thread(target=worker.work, args=(waiting, events), daemon=True).start()
    finished = 0
    try:
        while finished < len(configs):
            index, event = events.get()
            if "epoch" in event:
                yield Finished(index, event["epoch"])
            elif "finished" in event:
                finished += 1
                yield Finished(index, None)
            else:
                raise JobError(index, event["error"])
    finally:
        _end(workers)


class _Worker:
    """A process that trains.

    Args:
        threads: That it computes with; None for as many as PyTorch chooses.
    """

    def __init__(self, threads: int | None) -> None:
        path = list(map(str, sys.path))
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.path[:] = {path}; from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=os.environ | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)}),
            process_group=0,
        )

    def work(self, waiting: queue.SimpleQueue[Any], events: queue.SimpleQueue[Any]) -> None:
        """Feed the process from the queue until it is empty or a training fails, and forward its answers."""
        while not waiting.empty():
            with suppress(queue.Empty):
                index, config = waiting.get_nowait()
                try:
                    for answer in self._train(config):
                        events.put((index, answer))
                except Exception as error:  # an event too: nobody waits for one that does not come
                    events.put((index, {"error": f"the process that trained it gave no answer: {error}"}))
                if self.process.poll() is not None:
                    return

    def _train(self, config: TrainConfig) -> Iterator[dict[str, Any]]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(OSError):  # it has ended, which shows below
            self.process.stdin.write(f"{json.dumps(dataclasses.asdict(config))}\n")
            self.process.stdin.flush()
        for line in self.process.stdout:
            answer = json.loads(line)
            yield answer
            if "epoch" not in answer:
                return
        code = self.process.wait()
        why = "; perhaps memory ran out: give --jobs 1, or fewer than now" if code == -signal.SIGKILL else ""
        yield {"error": f"the process that trained it ended with code {code}{why}"}


def _end(workers: Sequence[_Worker]) -> None:
    """Stop all workers after they have saved; at once on another Ctrl-C."""
    for worker in workers:
        worker.process.terminate()  # and not by SIGINT, which shows a traceback while it still imports
    try:
        for worker in workers:
            while worker.process.returncode is None:
                try:
                    worker.process.wait(PATIENCE)
                except subprocess.TimeoutExpired:  # what it raised may be lost, as in a destructor
                    worker.process.terminate()
    except KeyboardInterrupt:
        for worker in workers:
            worker.process.kill()
        raise


def _serve(requests: TextIO, answers: TextIO) -> None:
    """Train what is requested until there is no more; end, as by Ctrl-C, when whoever requests it is gone."""
    tolerate_encodings()
    SHOWS_BARS.set(False)  # the comparison has one for all
    incoming: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in requests:
            incoming.put(line)
        os.kill(os.getpid(), signal.SIGTERM)

    def answer(**content: Any) -> None:
        answers.write(f"{json.dumps(content)}\n")

    class Report:
        def on_train_epoch_end(self, trainer: Any, _: Any) -> None:
            answer(epoch=trainer.current_epoch + 1)

    threading.Thread(target=listen, daemon=True).start()
    data = None
    while True:
        config = _config(json.loads(incoming.get()))
        try:
            data = data or config.open()  # the same for all: digits are drawn once
            train_network(config, data=data, verbose=False, callbacks=[Report()])
        except (ValueError, OSError, MissingExtraError, MemoryError, RuntimeError) as error:
            told = out_of_memory(error)
            if told is None and isinstance(error, RuntimeError):
                raise
            answer(error=told or str(error))
        else:
            answer(finished=True)


def _config(settings: dict[str, Any]) -> TrainConfig:
    """Return the configuration that was written as JSON, which knows no tuples."""
    tuples = {field.name for field in dataclasses.fields(TrainConfig) if "tuple" in str(field.type)}
    lists = {name: tuple(value) for name, value in settings.items() if name in tuples and isinstance(value, list)}
    return TrainConfig(**(settings | lists))


def serve() -> None:
    """Be a worker: train what comes on stdin until it is closed."""
    try:
        with raising_sigterm():
            # Not `sys.stdin`: processes that load images close it, and would wait forever for the thread that reads it.
            requests = os.fdopen(os.dup(0), encoding="utf-8")
            with open(os.devnull) as nothing:
                os.dup2(nothing.fileno(), 0)
            answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
            os.dup2(2, 1)  # what is printed, by what is imported too, is no answer
            import_again()
            _serve(requests, answers)
    except KeyboardInterrupt as interrupt:
        sys.exit(128 + getattr(interrupt, "signum", signal.SIGINT))
