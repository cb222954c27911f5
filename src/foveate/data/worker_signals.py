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

__all__ = ["shielded"]

_LIVE: WeakSet[Any] = WeakSet()
"""Iterators whose workers ignore signals."""


def shielded(loader: Any, begin: Callable[[], Iterator[Any]] | None = None) -> Iterator[Any]:
    """Return an iterator over ``loader`` whose workers ignore SIGINT and SIGTERM, and end with this process.

    The process that trains decides when to end, and may want batches until then.

    Args:
        loader: Batches; what is no `DataLoader` with workers is left as it is.
        begin: Makes the iterator, `iter` by default.
    """
    begin = begin or partial(iter, loader)
    if not isinstance(loader, DataLoader) or not loader.num_workers:
        return begin()
    if loader._iterator not in _LIVE:
        loader._iterator = None  # that of workers that were begun before, if they stay
    init = loader.worker_init_fn
    loader.worker_init_fn = partial(_ignore_signals, init)
    try:
        iterator = begin()
        if not hasattr(iterator, "_workers"):  # a generator, which begins its workers when it is asked for a batch
            iterator = _begun(iterator)
    finally:
        loader.worker_init_fn = init  # of those that the user begins later, nobody here takes care
    for one in (iterator, loader._iterator):
        if hasattr(one, "_workers"):
            _LIVE.add(one)
    return iterator


def _begun(batches: Iterator[Any]) -> Iterator[Any]:
    first = list(itertools.islice(batches, 1))
    return itertools.chain(first, batches)


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
