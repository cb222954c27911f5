"""Workers of data loaders and the signals that a terminal or a scheduler sends to all processes of a run."""

from __future__ import annotations

import atexit
import itertools
import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from weakref import WeakSet

from torch.utils.data import DataLoader

__all__ = ["begin_shielded", "shielded"]

_LIVE: WeakSet[Any] = WeakSet()
"""Iterators whose workers ignore signals."""


def shielded(loader: Any) -> Iterator[Any]:
    """Return an iterator over ``loader`` whose workers ignore SIGINT and SIGTERM, and end with this process.

    The process that trains decides when to end, and may want batches until then. What is no `DataLoader` with workers
    is left as it is.
    """
    if not isinstance(loader, DataLoader) or not loader.num_workers:
        return iter(loader)
    if loader._iterator not in _LIVE:
        loader._iterator = None  # that of workers that were begun before, if they stay
    loader._get_iterator = partial(begin_shielded, loader, loader._get_iterator)  # type: ignore[method-assign]
    batches = None
    try:
        batches = iter(loader)
    finally:
        if hasattr(batches, "_workers") or batches is None:
            vars(loader).pop("_get_iterator", None)  # which holds the loader that it is in
    return batches if hasattr(batches, "_workers") else _begun(loader, batches)


def _begun(loader: DataLoader[Any], batches: Iterator[Any]) -> Iterator[Any]:
    """Yield the batches of a loader that begins its workers when it is asked for the first."""
    try:
        first = list(itertools.islice(batches, 1))
    finally:
        vars(loader).pop("_get_iterator", None)
    yield from first
    yield from batches


def begin_shielded(loader: DataLoader[Any], begin: Callable[[], Any]) -> Any:
    """Return the iterator that ``begin`` makes of ``loader``, with workers that ignore these signals."""
    init = loader.worker_init_fn
    loader.worker_init_fn = partial(_ignore_signals, init)
    try:
        iterator = begin()
    finally:
        loader.worker_init_fn = init
    if hasattr(iterator, "_workers"):
        _LIVE.add(iterator)
    return iterator


def _ignore_signals(init: Callable[[int], Any] | None, number: int) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
    if init is not None:
        init(number)


@atexit.register  # before multiprocessing waits for those that it ends by a signal, which they ignore
def _end_workers() -> None:
    for iterator in list(_LIVE):
        iterator._shutdown_workers()
        for worker in iterator._workers:
            worker.kill()
