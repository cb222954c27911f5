"""The trainings of a comparison, with one display of progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

from tqdm import tqdm

from foveate.comparison.jobs import Finished, JobError, side_by_side
from foveate.io.files import read_json
from foveate.tasks import find_task
from foveate.training import TrainConfig, train_network
from foveate.training.build import Data, fingerprint_of
from foveate.training.run_folder import RESULT

__all__ = ["train_all"]


def train_all(runs: Sequence[TrainConfig], data: Data, jobs: int, *, verbose: bool = True) -> list[dict[str, Any]]:
    """Return the results of ``runs``, trained from where they stopped if they are not finished.

    Unless ``verbose`` is false, a line is printed for each that says how many are left and how long they will take;
    with several ``jobs`` a terminal shows a bar of all epochs besides.

    Raises:
        ValueError: A run failed, or is finished and was made of other data or tested on other images; the message
            names it.
        Interrupted: Ctrl-C or SIGTERM.
    """
    names = [f"[{k}/{len(runs)}] {run.folder.parent.name} seed {run.seed}" for k, run in enumerate(runs, 1)]
    left, fingerprint = [], fingerprint_of(data)
    for index, run in enumerate(runs):
        if (run.folder / RESULT).exists():
            fingerprint.check(read_json(run.folder / RESULT).get("data"), run.folder)
            if verbose:
                print(f"{names[index]}: {_verdict(run)}, finished before and reused", flush=True)
        else:
            left.append(index)
    start, done = time.perf_counter(), 0
    parallel = jobs > 1 and len(left) > 1
    hidden = None if parallel and verbose else True
    bar = tqdm(total=len(left) * runs[0].epochs, unit="epoch", leave=False, disable=hidden)
    todo = [runs[index] for index in left]
    events = side_by_side(todo, jobs) if parallel else _one_after_the_other(todo, data)
    try:
        with bar, closing(events):
            for place, epoch in events:
                if epoch is not None:
                    bar.update()
                    continue
                done += 1
                if not verbose:
                    continue
                run, elapsed = todo[place], time.perf_counter() - start
                remaining = len(todo) - done
                seconds = read_json(run.folder / RESULT)["seconds"]
                bar.write(
                    f"{names[left[place]]}: {_verdict(run)}, {seconds:.0f} s{', resumed' if run.resume else ''}"
                    + (f"; {remaining} left, about {elapsed / done * remaining / 60:.1f} min" if remaining else "")
                )
                sys.stdout.flush()
    except JobError as error:
        raise ValueError(f"{names[left[error.index]]}: {error}") from error
    results = [read_json(run.folder / RESULT) for run in runs]
    _check_same_images(runs, results)
    return results


def _check_same_images(runs: Sequence[TrainConfig], results: Sequence[dict[str, Any]]) -> None:
    """Raise a `ValueError` if some run was not tested on the images of the first: scores are paired by their places."""
    known = [(run, set(one["bad_tested"])) for run, one in zip(runs, results, strict=True) if "bad_tested" in one]
    for run, left_out in known[1:]:  # not of older versions
        if differing := known[0][1] ^ left_out:
            raise ValueError(
                f"{known[0][0].folder} and {run.folder} were tested on different images: {min(differing)} could be "
                "read in one of them alone. Delete the runs made while it could not be read, and compare again"
            )


def _one_after_the_other(runs: Sequence[TrainConfig], data: Data) -> Generator[Finished]:
    for index, run in enumerate(runs):
        try:
            train_network(run, data=data, verbose=False)
        except ValueError as error:
            raise JobError(index, str(error)) from error
        yield Finished(index, None)


def _verdict(run: TrainConfig) -> str:
    return find_task(run.task).verdict(read_json(run.folder / RESULT)["metrics"])
