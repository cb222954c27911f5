"""Training and testing classifiers, thin on Lightning and timm; and how sure a comparison of them is."""

from foveate._extras import require

for _needed in ("lightning", "torchmetrics", "scipy", "tensorboard"):
    require(_needed, extra="train")

from foveate.training.appearance import range_of  # noqa: E402
from foveate.training.card import ModelCard, NetworkMeta, read_card  # noqa: E402
from foveate.training.checkpoint import load_network, load_weights, save_network, save_with_card  # noqa: E402
from foveate.training.crossed import CrossedDifference, crossed_difference, holm  # noqa: E402
from foveate.training.equivariance import Equivariance, check_gates  # noqa: E402
from foveate.training.evaluation import Evaluation, evaluate  # noqa: E402
from foveate.training.fingerprint import DataFingerprint  # noqa: E402
from foveate.training.module import Classifier  # noqa: E402
from foveate.training.recipe import Recipe  # noqa: E402
from foveate.training.statistics import Accuracy, Difference, accuracy, paired_difference  # noqa: E402
from foveate.training.team import Strategy, Team, joined  # noqa: E402
from foveate.training.trainer import check_device, fit, predict  # noqa: E402

__all__ = [
    "Accuracy",
    "Classifier",
    "CrossedDifference",
    "DataFingerprint",
    "Difference",
    "Equivariance",
    "Evaluation",
    "ModelCard",
    "NetworkMeta",
    "Recipe",
    "Strategy",
    "Team",
    "accuracy",
    "check_device",
    "check_gates",
    "crossed_difference",
    "evaluate",
    "fit",
    "holm",
    "joined",
    "load_network",
    "load_weights",
    "paired_difference",
    "predict",
    "range_of",
    "read_card",
    "save_network",
    "save_with_card",
]
