"""Training networks, thin on Lightning and timm, with exact resumption.

`train` trains a network by its settings and leaves a folder that `foveate.load` reads; `fit` is the part below it that
takes a module and loaders.
"""

from foveate._devices import check_device
from foveate._extras import check_installed

for _needed in ("lightning", "torchmetrics", "scipy", "tensorboard"):
    check_installed(_needed, extra="train")

from foveate.training.api import TrainResult, train  # noqa: E402
from foveate.training.distributed import Distributed, Strategy, process_group  # noqa: E402
from foveate.training.equivariance import Equivariance, check_gates  # noqa: E402
from foveate.training.fingerprint import DataFingerprint  # noqa: E402
from foveate.training.loggers import EpochLogger, make_loggers  # noqa: E402
from foveate.training.module import TrainingModule  # noqa: E402
from foveate.training.recipe import Recipe  # noqa: E402
from foveate.training.run import train_network  # noqa: E402
from foveate.training.settings import TrainConfig  # noqa: E402
from foveate.training.trainer import fit, limited_threads, predict  # noqa: E402

__all__ = [
    "DataFingerprint",
    "Distributed",
    "EpochLogger",
    "Equivariance",
    "Recipe",
    "Strategy",
    "TrainConfig",
    "TrainResult",
    "TrainingModule",
    "check_device",
    "check_gates",
    "fit",
    "limited_threads",
    "make_loggers",
    "predict",
    "process_group",
    "train",
    "train_network",
]
