"""The parts of the suite. To add one, add a line; what has tests of its own in `make test` is not made there again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.export import onnx_deviation
from tests.fuzz import checkpoints, compiled, configs, folders, images, modules, operators
from tests.fuzz.outcome import Outcome, Part
from tests.training.injections import injection_trials
from tests.training.interruptions import disk_trials, kill_trials, signal_trials
from tests.training.processes import process_trials
from tests.training.sharing import sharing_trials


def _in_a_folder(driver: Callable[[int, int, Path], Outcome]) -> Callable[[int, int], Outcome]:
    def run(trials: int, seed: int) -> Outcome:
        with TemporaryDirectory(prefix="foveate-fuzz-") as folder:
            return driver(trials, seed, Path(folder) / "trials")

    return run


PARTS: dict[str, Part] = {
    "modules": Part(
        modules.run, 1000, 2, "random configurations of each module, in each dtype, against loops in float64"
    ),
    "operators": Part(
        operators.run, 200, 5, "GSA's operators called directly, with every kind of strides and with what does not fit"
    ),
    "images": Part(images.run, 500, 40, "unusual and broken images: decoded as stored, or named and counted"),
    "folders": Part(
        folders.run, 300, 40, "folders of images as people have them: the right classes and images, or exit code 2"
    ),
    "checkpoints": Part(checkpoints.run, 500, 40, "mutated checkpoints and model cards, and pickles that run commands"),
    "configs": Part(configs.run, 300, 60, "wrong command lines and configuration files: exit code 2, the field named"),
    "compiled": Part(compiled.run, 30, 3, "sizes for networks under torch.compile, compiled at most twice"),
    "onnx": Part(
        onnx_deviation.run, 20, 0, "sizes for networks in ONNX by onnxruntime: as eager to 1e-4, the same top-1"
    ),
    "kill": Part(
        _in_a_folder(kill_trials), 100, 0, "trainings killed (SIGKILL) at random moments and resumed: bit-equal weights"
    ),
    "signal": Part(
        _in_a_folder(signal_trials), 20, 0, "SIGINT and SIGTERM: saved within the update, code 130 or 143, bit-equal"
    ),
    "processes": Part(
        _in_a_folder(process_trials), 6, 0, "one of several processes killed: the job ends, restarts, and is bit-equal"
    ),
    "sharing": Part(
        _in_a_folder(sharing_trials),
        2,
        0,
        "2 and 4 processes against one: gradients to 1e-6; 4 gone on as 2: each image once",
    ),
    "disk": Part(
        _in_a_folder(disk_trials), 50, 0, "files that cannot be written to the end: the checkpoint before is unharmed"
    ),
    "non_finite": Part(
        _in_a_folder(injection_trials), 20, 0, "NaN and infinity put into trainings: caught before the update"
    ),
}
