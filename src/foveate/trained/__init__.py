"""`TrainedNetwork`: a network, how its images are prepared, what its outputs mean; `load` makes one.

trained = foveate.load("runs/mine")
trained.predict("photo.jpg"), trained.explain("photo.jpg").save("where.png"), trained.evaluate("photographs")
"""

from foveate.trained.evaluation import EvaluationResult
from foveate.trained.loading import build, evaluate, load, told_apart
from foveate.trained.network import Prediction, TrainedNetwork

__all__ = ["EvaluationResult", "Prediction", "TrainedNetwork", "build", "evaluate", "load", "told_apart"]
