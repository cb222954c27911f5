"""What is imported, and when: in processes of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interpreters import Interpreter


def test_importing_prints_nothing_warns_of_nothing_and_is_light(python: Interpreter) -> None:
    done = python.run(
        "import sys, warnings, torch, torchvision, timm\n"
        "before = set(sys.modules)\n"
        "with warnings.catch_warnings():\n"
        "    warnings.simplefilter('error')\n"
        "    import foveate\n"
        "assert timm.is_model('gsa_resnet50')\n"
        "heavy = {'lightning', 'jsonargparse', 'sklearn', 'scipy', 'matplotlib', "
        "'torchmetrics', 'jinja2', 'pandas', 'pytorch_grad_cam', 'cv2', 'jaxtyping', 'beartype'}\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "assert not new & heavy, new & heavy\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_a_training_needs_late_is_imported_late(python: Interpreter) -> None:
    done = python.run(
        "import sys, foveate.training, foveate.stats\n"
        "print({'lightning', 'torchmetrics', 'scipy', 'matplotlib', 'tensorboard'} & set(sys.modules))"
    )
    assert (done.stdout, done.stderr) == ("set()\n", "")


WITHOUT_EXTRAS = """
import importlib.machinery, sys
missing = {'lightning', 'jsonargparse', 'sklearn', 'scipy', 'matplotlib', 'torchmetrics', 'tensorboard', 'jinja2'}
missing |= {'jaxtyping', 'beartype'}
assert not missing & set(sys.modules)
found = importlib.machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition('.')[0] in missing else found(name, path, target)
importlib.machinery.PathFinder.find_spec = find_spec
"""


def test_core_commands_run_without_any_extra(python: Interpreter) -> None:
    done = python.run(
        f"{WITHOUT_EXTRAS}"
        "from foveate.commands import cost, models\n"
        "cost.run(cost.CostConfig(models=['gsa_resnet_tiny'], img_size=48))\n"
        "models.run(models.ModelsConfig(filter='gsa_*'))\n"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "gsa_resnet_tiny" in done.stdout


@pytest.mark.parametrize(("package", "extra"), [("training", "train"), ("explain", "explain")])
def test_a_missing_extra_is_named(package: str, extra: str, python: Interpreter) -> None:
    done = python.run(
        f"{WITHOUT_EXTRAS}"
        "from foveate._extras import MissingExtraError\n"
        f"try:\n    import foveate.{package}\n"
        "except MissingExtraError as error:\n    print(error)\n"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"is not installed; install it with: pip install 'foveate[{extra}]'" in done.stdout


def test_an_import_that_fails_for_another_reason_is_not_blamed_on_an_extra(tmp_path: Path, python: Interpreter) -> None:
    (tmp_path / "needs_scipy.py").write_text("import scipy")
    done = python.run(
        f"{WITHOUT_EXTRAS}"
        "from foveate._extras import require\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "try:\n    require('needs_scipy', extra='train')\n"
        "except ModuleNotFoundError as error:\n    print(type(error).__name__, error.name)\n"
    )
    assert done.stdout.split() == ["ModuleNotFoundError", "scipy"], done.stderr
