"""Description of the machine of a benchmark: enough to tell two apart, nothing that identifies one."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

__all__ = ["cores", "describe_machine", "memory"]

PACKAGES = ("foveate", "torch", "timm", "gsa-pytorch", "triton")
CPU_MAX, MEMORY_MAX = Path("/sys/fs/cgroup/cpu.max"), Path("/sys/fs/cgroup/memory.max")
SWITCHES = ("FOVEATE_FUSED", "ATEN_CPU_CAPABILITY", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables that choose between kernels or limit threads."""


def cores() -> int:
    """Return how many cores this process may use, by its affinity and the quota of its container."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CPU_MAX.read_text(encoding="ascii").split()
        return max(1, min(found, round(int(quota) / int(period))))
    except (OSError, ValueError):  # none, or not of Linux
        return found


def memory() -> int:
    """Return how many bytes of memory the machine, or the container, has."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else sys.maxsize
    with suppress(OSError, ValueError):  # none, no limit, or not of Linux
        found = min(found, int(MEMORY_MAX.read_text(encoding="ascii")))
    return found


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return processor, cores, load, threads, memory, versions and the date, as JSON holds them."""
    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "load_average": os.getloadavg()[0],
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "environment": {name: os.environ[name] for name in SWITCHES if name in os.environ},
        "python": platform.python_version(),
        "versions": _versions(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["gpu"] = {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_bytes": properties.total_memory,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def _processor() -> str:
    """Return the name of the processor, which Python knows only on some systems."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
