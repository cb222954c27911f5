"""What the C library does with memory that is freed."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["freed_memory_kept", "out_of_memory"]

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
"""Of glibc's ``mallopt``."""
NEVER = 2**31 - 1
AFTERWARDS = {TRIM_THRESHOLD: 64 * 2**20, MMAP_THRESHOLD: 32 * 2**20, MMAP_MAX: 65536}
"""What glibc's thresholds grow to by themselves where large blocks are freed; once set they grow no more."""

_lock = threading.Lock()
_users = 0


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Have glibc keep what is freed for what is allocated next, and give it back at the end.

    By default large blocks go back to the system at once: every step of a training on a CPU asks for them again, and
    the system clears each page before it hands it out, which takes up to a seventh of the time of a step. The process
    holds as much as it needed at its peak, and somewhat more. Other C libraries are left as they are.
    """
    global _users
    libc = _glibc()
    with _lock:
        _users += 1
        if _users == 1 and libc is not None:
            libc.mallopt(TRIM_THRESHOLD, NEVER)
            libc.mallopt(MMAP_MAX, 0)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users and libc is not None:
                for parameter, value in AFTERWARDS.items():
                    libc.mallopt(parameter, value)
                libc.malloc_trim(0)


def _glibc() -> Any | None:
    """Return the C library of the process if it is glibc, whose functions have these parameters."""
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows
        return None
    return libc if all(hasattr(libc, name) for name in ("gnu_get_libc_version", "mallopt", "malloc_trim")) else None


def out_of_memory(error: BaseException) -> str | None:
    """Return what to say of an error for want of memory, of a GPU, the machine or its workers; None of another one."""
    lines = str(error).splitlines() or [type(error).__name__]
    if error.__cause__ is not None:  # PyTorch says there what ended a worker
        lines += str(error.__cause__).splitlines()
    lacking = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    # Of what went wrong in a worker the text is a traceback.
    signs = ("can't allocate memory", "is killed by signal: Killed", "is killed by signal: Bus error")
    telling = [line for line in lines if any(sign in line for sign in signs)]
    if not lacking and not telling:
        return None
    return f"memory ran out: {(telling or lines)[0].strip()}; lower batch_size, img_size or workers"
