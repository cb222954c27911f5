"""Workers of data loaders and the signals that a terminal or a scheduler sends to all processes of a run."""

from __future__ import annotations

import atexit
import signal
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakSet

from torch.utils.data import DataLoader

__all__ = ["begin_shielded", "shield_workers"]

_LIVE: WeakSet[Any] = WeakSet()
"""Iterators whose workers ignore signals."""


def shield_workers(loader: Any) -> None:
    """Have the workers that ``loader`` begins from now on ignore SIGINT and SIGTERM, and end with this process.

    The process that trains decides when to end, and may want batches until then. What is no `DataLoader` is left as it
    is.
    """
    if isinstance(loader, DataLoader) and "_get_iterator" not in vars(loader):
        loader._iterator = None  # that of workers that were begun before, if they stay
        loader._get_iterator = partial(begin_shielded, loader, loader._get_iterator)  # type: ignore[method-assign]


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
