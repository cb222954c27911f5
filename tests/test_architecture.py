"""The shape of the library: who imports whom, how light it is to import, and what no file may hold."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "foveate"
FILES = sorted(PACKAGE.rglob("*.py"))
STUDIES = sorted((ROOT / "studies").rglob("*.py"))

ROOMS = (
    "kernels",
    "functional",
    "nn",
    "models",
    "io",
    "stats",
    "data",
    "tasks",
    "training",
    "explain",
    "trained",
    "benchmark",
    "export",
    "report",
    "comparison",
    "demo",
    "commands",
    "cli",
    "__main__",
)
"""Parts of the package; each imports those before it, and the private modules at the top."""
FREE = {"__init__", "timm"}
"""The package itself, and what imports it whole."""

CORE = {"torch", "torchvision", "timm", "numpy", "PIL", "triton"}
"""What may be imported where the extras are not installed: numpy and Pillow come with timm and torchvision, triton with
torch on GPUs."""
CORE_PARTS = {"kernels", "functional", "nn", "models", "benchmark", "__init__", "__main__"}
CORE_FILES = {"commands/__init__.py", "commands/cost.py", "commands/models.py", "report/__init__.py", "report/text.py"}

TYPE_CHECKERS_ONLY = {"_shapes.py": {"jaxtyping"}}
"""What a file imports under `TYPE_CHECKING` alone."""

REQUIRED_LATE = {"models/dense/segmenter.py": {"segmentation_models_pytorch"}}
"""What a file asks for by `_extras.require`, within the function that needs it."""

MAX_LINES = 300


def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def part_of(file: Path) -> str:
    relative = file.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(tree: ast.Module, package: str) -> Iterator[str]:
    """Yield every module that is imported anywhere in ``tree``, inside functions too, by its full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *filter(None, [base])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and name_of(node.func) in {"import_module", "require", "__import__"}:
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant))


def name_of(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def wrong_imports(part: str, tree: ast.Module, package: str = "foveate") -> list[str]:
    """Return the imports in ``tree`` that a file of ``part`` may not have."""
    if part in FREE:
        return []
    wrong = []
    for name in imports(tree, package):
        top, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if top != "foveate" or (target.startswith("_") and not target.startswith("__")) or target == part:
            continue
        if part not in ROOMS:
            wrong.append(f"{part} is imported by all and imports {name}")
        elif target not in ROOMS or ROOMS.index(target) > ROOMS.index(part):
            wrong.append(f"{part} imports {name}")
        elif target == "kernels" and part != "functional":
            wrong.append(f"{part} imports {name}: only functional knows that there are kernels")
    return wrong


@pytest.mark.slow
def test_imports_run_one_way() -> None:
    wrong = {
        str(file.relative_to(PACKAGE)): wrong_imports(
            part_of(file), parse(file), ".".join(["foveate", *file.relative_to(PACKAGE).parts[:-1]])
        )
        for file in FILES
    }
    assert {file: names for file, names in wrong.items() if names} == {}


@pytest.mark.slow
def test_the_package_needs_nothing_outside_of_it() -> None:
    outside = {file: {name.partition(".")[0] for name in imports(parse(file), "foveate")} for file in FILES}
    assert STUDIES
    assert {file for file, tops in outside.items() if tops & {"studies", "tests"}} == set()


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("functional", "from foveate.nn import ExpAttConv2d"),
        ("nn", "import foveate.models.zoo"),
        ("nn", "from foveate import kernels"),
        ("models", "def f():\n    from foveate.training import fit"),
        ("data", "from ..explain import maps"),
        ("explain", "from foveate import benchmark"),
        ("training", "import importlib\nimportlib.import_module('foveate.explain')"),
        ("commands", "from foveate.cli import main"),
        ("demo", "from foveate import commands"),
        ("explain", "from foveate.trained import load"),
        ("_checks", "from foveate.nn import ExpAttConv2d"),
        ("commands", "import foveate"),
    ],
)
def test_the_rule_catches(part: str, source: str) -> None:
    assert wrong_imports(part, ast.parse(source), f"foveate.{part}") != []


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("functional", "from foveate import kernels"),
        ("nn", "from foveate import _checks, functional as FA"),
        ("training", "from . import loop\nfrom ..models import insert\nimport foveate.nn"),
        ("commands", "from foveate.data import open_data\nfrom foveate.explain import attention_records"),
        ("_images", "from foveate import _checks\nimport torch"),
    ],
)
def test_the_rule_allows(part: str, source: str) -> None:
    assert wrong_imports(part, ast.parse(source), f"foveate.{part}") == []


def test_core_files_need_no_extra() -> None:
    needed = {}
    for file in FILES:
        part, relative = part_of(file), file.relative_to(PACKAGE).as_posix()
        if part in CORE_PARTS or part.startswith("_") or relative in CORE_FILES:
            tops = {name.partition(".")[0] for name in imports(parse(file), "foveate")}
            allowed = CORE | sys.stdlib_module_names | {"foveate"}
            allowed |= TYPE_CHECKERS_ONLY.get(relative, set()) | REQUIRED_LATE.get(relative, set())
            needed[relative] = tops - allowed
    assert {file: names for file, names in needed.items() if names} == {}


def test_the_start_of_the_command_needs_the_standard_library_alone() -> None:
    file = PACKAGE.parent / "foveate_cli.py"
    tops = {name.partition(".")[0] for name in imports(parse(file), "")}
    assert tops - sys.stdlib_module_names == {"foveate"}  # when it hands over
    assert len(file.read_text("utf-8").splitlines()) <= MAX_LINES


def test_commands_are_a_configuration_and_a_call() -> None:
    lengths = {path.name: len(path.read_text("utf-8").splitlines()) for path in (PACKAGE / "commands").glob("*.py")}
    assert max(lengths.values()) <= 150
    assert sum(lengths.values()) <= 2000


def test_files_are_short() -> None:
    lengths = {path.relative_to(PACKAGE).as_posix(): len(path.read_text("utf-8").splitlines()) for path in FILES}
    lengths |= {path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines()) for path in STUDIES}
    assert {path for path, lines in lengths.items() if lines > MAX_LINES} == set()


def unsafe_loads(tree: ast.Module) -> list[str]:
    """Return the calls in ``tree`` that would run code from a file."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        call = f"{name_of(node.func.value)}.{node.func.attr}"
        keywords = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
        if call == "torch.load" and keywords.get("weights_only") is not True:
            found.append(f"line {node.lineno}: {call} without weights_only=True")
        if call in {"pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load", "dill.load", "yaml.load"}:
            found.append(f"line {node.lineno}: {call}")
        if keywords.get("allow_pickle"):
            found.append(f"line {node.lineno}: {call} with allow_pickle")
    return found


@pytest.mark.slow
def test_nothing_that_is_loaded_can_run_code() -> None:
    assert {file: calls for file in (*FILES, *STUDIES) if (calls := unsafe_loads(parse(file)))} == {}
    modules = {name for file in FILES for name in imports(parse(file), "foveate")}
    assert {name for name in modules if name.startswith(("pickle.", "dill", "joblib"))} <= {"pickle.UnpicklingError"}


def test_unsafe_loads_are_seen() -> None:
    source = "torch.load(f)\ntorch.load(f, weights_only=False)\npickle.load(f)\nnp.load(f, allow_pickle=True)"
    assert len(unsafe_loads(ast.parse(source))) == 4
    assert unsafe_loads(ast.parse("torch.load(f, weights_only=True)\nnp.load(f)")) == []


@pytest.mark.slow
def test_no_file_names_a_folder_of_one_machine() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    absolute = re.compile(rb"(?<![\w.~/:-])/(?:work|home|root|Users|mnt|workspace)/")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert PACKAGE / "__init__.py" in files
    mention = [str(path) for path in files if path.is_file() and absolute.search(path.read_bytes())]
    assert mention == []
