"""Atomic files: written beside their place, then moved into it."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from foveate.io.streams import encoded

__all__ = [
    "read_json",
    "read_text",
    "remove_temporary",
    "sole_writer",
    "writable_file",
    "writable_folder",
    "write_bytes",
    "write_json",
    "write_text",
]

PATIENCE = 8.0
"""Seconds for which the data workers of a killed process, and its lock on a folder, may outlive it."""


def write_bytes(path: Path, content: bytes | memoryview, *, keep: Path | None = None, rehearsal: bool = False) -> None:
    """Write ``content`` to ``path`` atomically, even if the machine stops meanwhile.

    The content goes to a file beside ``path`` first and from there to the disk; then the file is moved into its place.
    What ``path`` links to is replaced, not the link; to a device or a pipe, such as /dev/stdout, it is just written. An
    `OSError` names ``path``.

    Args:
        path: The file.
        content: Its content.
        keep: Where to move the present file, in the same folder; by default it is replaced.
        rehearsal: Write the content, but then remove it, to know that it can be written.
    """
    if _is_device(path):
        if not rehearsal:
            _write_to_device(path, content)
        return
    place = path
    if keep is None and path.is_symlink():
        path = Path(os.path.realpath(path))
    short = os.fsencode(path.name)[:100].decode(errors="ignore")  # a name may have the largest length allowed
    temporary = path.with_name(f".{short}.{os.getpid()}-{secrets.token_hex(4)}.tmp")  # other threads, other machines
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if rehearsal:
            return
        if keep is not None and path.exists():
            path.replace(keep)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(place)) from error
    finally:
        with suppress(OSError):  # not in place of what went wrong before
            temporary.unlink(missing_ok=True)


def _is_device(path: Path) -> bool:
    """Tell whether ``path`` is no place for a file that could be replaced: a device, a pipe, an open file."""
    return _descriptor(path) is not None or (path.exists() and not path.is_file() and not path.is_dir())


def _descriptor(path: Path) -> int | None:
    """Return the number of the open file that ``path`` stands for, such as /dev/stdout."""
    number = {"/dev/stdout": "1", "/dev/stderr": "2"}.get(str(path), path.name)
    return int(number) if str(path).startswith(("/dev/std", "/dev/fd/")) and number.isdecimal() else None


def _write_to_device(path: Path, content: bytes | memoryview) -> None:
    """Write to a device or a pipe; to an open file behind what was printed to it."""
    descriptor = _descriptor(path)
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        with path.open("ab") if descriptor is None else os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _sync_folder(folder: Path) -> None:
    """Flush the names in ``folder`` to the disk: without it a moved file can be lost with the power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of file systems on which folders are not flushed
            raise
    finally:
        os.close(descriptor)


def remove_temporary(folder: Path) -> None:
    """Remove files that a killed process was writing in ``folder``."""
    for place in (folder, folder / "logs"):  # not below: other runs may be writing there
        for left in place.glob(".*.[0-9]*.tmp"):
            if left.is_file():
                left.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in UTF-8, atomically; names that are not UTF-8 are escaped, see `encoded`."""
    write_bytes(path, encoded(text))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` to ``path`` as JSON, atomically; NaN and infinity, which JSON lacks, become null."""
    write_text(path, json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> Any:
    """Read a JSON file; a `ValueError` names a file that is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}); delete it to have it made anew") from error


def read_text(path: Path) -> str:
    """Return the content of a text file, without a mark of its encoding; a `ValueError` names one that is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8; save it as such: {error}") from error


def writable_folder(path: Path) -> Path:
    """Create the folder ``path`` if need be and make sure that files can be written in it; return it.

    A `ValueError` gives the reason why it cannot; folders created on the way are removed.
    """
    created = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as probe:  # a full disk accepts the file, not its contents
            probe.write(bytes(1 << 16))
            probe.flush()
    except OSError as error:
        for folder in created:
            if folder.exists():
                folder.rmdir()
        raise ValueError(f"cannot write to the output folder {path}: {error.strerror}; choose another one") from error
    return path


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold a lock on ``folder`` against other writers for the duration; it leaves no file behind.

    A `ValueError` says that another process holds it, and still after `PATIENCE` seconds.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        end = time.monotonic() + PATIENCE
        while not _locked(descriptor):
            if time.monotonic() > end:
                raise ValueError(
                    f"another process is writing to {folder}; wait until it has ended, or give another one"
                )
            time.sleep(0.2)
        yield
    finally:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # for worker processes that live on, which have the descriptor too
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks, as some network ones
        return True
    return True


def writable_file(path: Path) -> Path:
    """Make sure that a file can be written at ``path``, its folder created if need be; return ``path``."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file in it")
    if _is_device(path):
        return path
    writable_folder(Path(os.path.realpath(path)).parent)
    return path
