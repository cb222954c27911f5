"""Tasks by name."""

from __future__ import annotations

from foveate import _checks
from foveate.tasks.classification import Classification
from foveate.tasks.detection import Detection
from foveate.tasks.segmentation import Segmentation
from foveate.tasks.task import Task

__all__ = ["TASKS", "find_task", "register_task"]

TASKS: dict[str, type[Task]] = {task.name: task for task in (Classification, Segmentation, Detection)}
"""The tasks that ``--task`` and ``foveate.train(task=…)`` know by name."""


def find_task(name: str) -> type[Task]:
    """Return the task called ``name``; raise a `ValueError` that lists the known ones if there is none."""
    _checks.one_of("task", name, tuple(TASKS))
    return TASKS[name]


def register_task(task: type[Task]) -> type[Task]:
    """Make a task known by its name; usable as a decorator.

    Raises:
        ValueError: It is not a subclass of `Task`, or another task has its name.
    """
    if not (isinstance(task, type) and issubclass(task, Task)):
        raise ValueError(f"task must be a name or a subclass of foveate.tasks.Task; got {task!r}")
    known = TASKS.get(task.name, task)
    if (known.__module__, known.__qualname__) != (task.__module__, task.__qualname__):
        raise ValueError(f"task {task.name!r} is {known.__qualname__} already; give {task} another name")
    TASKS[task.name] = task  # one that was defined again, as in a notebook, replaces the one before
    return task
