"""Training and evaluating networks, thin on Lightning and timm, with exact resumption."""

from foveate._devices import check_device
from foveate._extras import check_installed

for _needed in ("lightning", "torchmetrics", "scipy", "tensorboard"):
    check_installed(_needed, extra="train")

from foveate.training.equivariance import Equivariance, check_gates  # noqa: E402
from foveate.training.evaluation import Evaluation, evaluate  # noqa: E402
from foveate.training.fingerprint import DataFingerprint  # noqa: E402
from foveate.training.module import Classifier  # noqa: E402
from foveate.training.recipe import Recipe  # noqa: E402
from foveate.training.team import Strategy, Team, joined  # noqa: E402
from foveate.training.trainer import fit, limited_threads, predict  # noqa: E402

__all__ = [
    "Classifier",
    "DataFingerprint",
    "Equivariance",
    "Evaluation",
    "Recipe",
    "Strategy",
    "Team",
    "check_device",
    "check_gates",
    "evaluate",
    "fit",
    "joined",
    "limited_threads",
    "predict",
]
