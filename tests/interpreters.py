"""Python as a new process has it, but with PyTorch and timm, which take seconds, imported already: a fork of one."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Interpreter", "interpreter"]

FORKS = """
import json, os, sys, traceback
import timm, torch, torchvision
for line in sys.stdin:
    asked = json.loads(line)
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    for number in (1, 2):
        os.dup2(os.open(asked["files"][number - 1], os.O_WRONLY | os.O_CREAT), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(asked["cwd"])
    code = 1
    try:
        exec(asked["code"], {"__name__": "__main__"})
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
"""


class Interpreter:
    """What executes programs, each in a process of its own that has imported nothing of this library."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, code: str, cwd: str | Path = "/") -> subprocess.CompletedProcess[str]:
        """Execute a program; return what ``subprocess.run([sys.executable, "-c", code])`` would."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / name for name in ("out", "err")]
            asked = {"code": code, "cwd": str(cwd), "files": list(map(str, files))}
            self._process.stdin.write(f"{json.dumps(asked)}\n")
            self._process.stdin.flush()
            ended = int(self._process.stdout.readline())
            return subprocess.CompletedProcess(code, ended, *(file.read_text("utf-8") for file in files))


@contextmanager
def interpreter() -> Iterator[Interpreter]:
    """Start an interpreter, and end it."""
    command = [sys.executable, "-c", FORKS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Interpreter(process)
        process.stdin.close()  # type: ignore[union-attr]
