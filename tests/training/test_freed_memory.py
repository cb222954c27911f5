"""Memory of a training on a CPU: what a step frees the next one gets, and at the end the system has it back."""

from __future__ import annotations

import pytest
from tests.interpreters import Interpreter

from foveate import _memory

SCRIPT = """
import resource
import torch
from foveate._memory import freed_memory_kept

def pages(steps=20):  # that the system had to hand out: 40 MB a step if none is kept
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        held = [torch.ones(10_000_000), torch.ones(1_000_000)]
        del held
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

pages(2)
usual = pages()
with freed_memory_kept():
    with freed_memory_kept():
        pages(2)
    kept = pages()
    inside = resident()
print(usual, kept, inside - resident(), pages())
"""


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory.ctypes, "CDLL", lambda _: object())
    with _memory.freed_memory_kept():
        assert _memory._users == 1
    assert _memory._users == 0


def test_pages_are_asked_for_once_and_given_back(python: Interpreter) -> None:
    done = python.run(SCRIPT)
    assert done.returncode == 0, done.stderr
    usual, kept, given_back, after = map(int, done.stdout.split())
    assert usual > 20 * 9_000
    assert kept < usual / 20
    assert given_back > 30_000_000
    assert after > usual / 2
