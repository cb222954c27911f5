"""Tasks: targets, loss, metrics and evaluation of what a network learns, one class and one file each.

Training, comparing and evaluating ask a `Task` and never a concrete one. To add a task, subclass `Task` in a file of
its own and add it to `TASKS`, or from outside of the library hand the class to ``foveate.train(task=…)``.
"""

from foveate._extras import check_installed

for _needed in ("torchmetrics", "scipy"):
    check_installed(_needed, extra="train")

from foveate.tasks.classification import Classification, ClassificationResult, classification_result  # noqa: E402
from foveate.tasks.detection import Detection, DetectionResult  # noqa: E402
from foveate.tasks.registry import TASKS, find_task, register_task  # noqa: E402
from foveate.tasks.segmentation import Segmentation, SegmentationResult  # noqa: E402
from foveate.tasks.task import Batch, Metrics, Task  # noqa: E402

__all__ = [
    "TASKS",
    "Batch",
    "Classification",
    "ClassificationResult",
    "Detection",
    "DetectionResult",
    "Metrics",
    "Segmentation",
    "SegmentationResult",
    "Task",
    "classification_result",
    "find_task",
    "register_task",
]
