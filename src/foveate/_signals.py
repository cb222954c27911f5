"""Ctrl-C and SIGTERM: as an exception, or as a request that is honoured when the work at hand is whole."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["Interrupted", "StopRequest", "deferred_signals", "raising_sigterm"]


class Interrupted(KeyboardInterrupt):
    """The work was told to end, by Ctrl-C (SIGINT) or by SIGTERM.

    A `KeyboardInterrupt`, so that what handles errors lets it through.

    Args:
        signum: The signal.
        message: How to go on from here, if that is possible.
    """

    def __init__(self, signum: int = signal.SIGINT, message: str = "") -> None:
        super().__init__(message)
        self.signum = signum


@contextmanager
def raising_sigterm() -> Iterator[None]:
    """Raise `Interrupted` on SIGTERM, as Ctrl-C raises `KeyboardInterrupt`, so that temporary files are removed."""

    def interrupt(signum: int, _: Any) -> None:
        raise Interrupted(signum)

    with _handling(interrupt, signal.SIGTERM):
        yield


class StopRequest:
    """Notes a signal; a Ctrl-C after it ends the work at once.

    Args:
        verbose: Say that it was noted.

    Attributes:
        signum: The first signal that arrived; None until then.
    """

    def __init__(self, *, verbose: bool = True) -> None:
        self.verbose = verbose
        self.signum: int | None = None

    def __call__(self, signum: int, _: Any) -> None:
        """Handle a signal."""
        if self.signum is None:
            self.signum = signum
            if self.verbose:  # not by print: a signal may arrive inside of one, and the streams do not take that
                with suppress(OSError):  # whoever read it, such as tee, has ended by the same Ctrl-C
                    os.write(2, b"\nfoveate: saving at the end of this step; Ctrl-C again ends at once\n")
        elif signum == signal.SIGINT:
            raise Interrupted(signum)


@contextmanager
def deferred_signals(*, verbose: bool = True) -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a `StopRequest`; one that nobody honoured is raised at the end of the block."""
    request = StopRequest(verbose=verbose)
    with _handling(request, signal.SIGINT, signal.SIGTERM):
        yield request
    if request.signum is not None:
        raise Interrupted(request.signum)


@contextmanager
def _handling(handler: Callable[[int, Any], None], *signals: signal.Signals) -> Iterator[None]:
    """Handle ``signals`` with ``handler`` within the block; in another thread than the main one, leave them alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # None is a handler of a program that this one is embedded in: it could not be put back.
    before = {signum: signal.signal(signum, handler) for signum in signals if signal.getsignal(signum) is not None}
    try:
        yield
    finally:
        for signum, former in before.items():
            signal.signal(signum, former)
