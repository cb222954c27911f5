"""`TrainedNetwork`: a network, how its images are prepared, what its outputs mean; `load` makes one.

trained = foveate.load("runs/mine")
trained.predict("photo.jpg"), trained.explain("photo.jpg").save("where.png"), trained.evaluate("photographs")
"""

from foveate.trained.classifier import Prediction, TrainedClassifier
from foveate.trained.detector import Detected, Detections, TrainedDetector
from foveate.trained.evaluation import (
    ClassificationEvaluation,
    DetectionEvaluation,
    EvaluationResult,
    SegmentationEvaluation,
)
from foveate.trained.loading import build, evaluate, load, told_apart
from foveate.trained.network import TrainedNetwork
from foveate.trained.segmenter import Segmented, TrainedSegmenter

__all__ = [
    "ClassificationEvaluation",
    "Detected",
    "DetectionEvaluation",
    "Detections",
    "EvaluationResult",
    "Prediction",
    "SegmentationEvaluation",
    "Segmented",
    "TrainedClassifier",
    "TrainedDetector",
    "TrainedNetwork",
    "TrainedSegmenter",
    "build",
    "evaluate",
    "load",
    "told_apart",
]
