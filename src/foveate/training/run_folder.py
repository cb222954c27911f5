"""The folder of a run: what it holds, and whether a training may begin or go on there."""

from __future__ import annotations

import shlex
from pathlib import Path

from foveate._imports import imported_names
from foveate.training.distributed import Distributed
from foveate.training.settings import TrainConfig
from foveate.training.settings_file import CONFIG, check_unchanged, read_settings
from foveate.training.train_state import LAST, find_checkpoint, read_checkpoint, this_job

__all__ = ["RESULT", "begun_by_this_job", "is_to_be_resumed", "resume_command"]

RESULT = "result.json"


def is_to_be_resumed(config: TrainConfig, launched: bool, restarted: bool) -> bool:
    """Return whether there is a checkpoint to go on from, and that is asked for, by the user or by torchrun.

    Args:
        config: What is asked for.
        launched: Whether torchrun has started this process.
        restarted: Whether torchrun has started the processes again because one failed.

    Raises:
        ValueError: A run or a file of somebody's would be written over, or the run to be resumed is not there,
            finished, or other.
    """
    out, another = config.folder, "give another `out`"
    if (out / RESULT).exists():
        raise ValueError(f"{out} holds a finished run; {another}, or delete it")
    if find_checkpoint(out) is None:
        if config.resume and not launched:
            raise ValueError(f"there is nothing to resume in {out}: it has no {LAST}; leave out `resume`, or {another}")
        read_settings(out / CONFIG, config)
        return False
    if not config.resume and not (restarted and begun_by_this_job(out)):
        raise ValueError(f"{out} holds an unfinished run; continue it with `--resume`, or {another}")
    check_unchanged(out / CONFIG, config)
    return True


def begun_by_this_job(out: Path) -> bool:
    """Return whether the job of torchrun's that this process is of has written the newest checkpoint in ``out``."""
    return find_checkpoint(out) is not None and read_checkpoint(out)[0].get("job") == this_job()


def resume_command(out: Path, distributed: Distributed) -> str:
    """Return the command line that continues the run in ``out``; ``…`` stands for how machines find each other."""
    machines = distributed.size // distributed.local_size
    launcher = f"torchrun --nnodes={machines} --nproc_per_node={distributed.local_size} {'… ' * (machines > 1)}-m "
    imported = [word for name in imported_names() for word in ("--import", name)]
    command = shlex.join(["foveate", *imported, "train", "--config", str(out / CONFIG), "--resume"])
    return f"{launcher}{command}" if distributed.launched else command
