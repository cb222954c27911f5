"""Run a script with foveate's networks registered with timm: ``python -m foveate.timm validate.py --model NAME``.

timm's own scripts (``train.py``, ``validate.py``, ``benchmark.py``, ``inference.py``) know the networks of timm alone;
this runs them, or any other script, with those of foveate beside.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import foveate  # noqa: F401

__all__ = ["main"]


def main() -> None:
    """Run the script that the command line names, with the arguments that follow."""
    if len(sys.argv) < 2 or not Path(sys.argv[1]).is_file():
        got = f"no file {sys.argv[1]!r}" if len(sys.argv) > 1 else "nothing"
        sys.stderr.write(f"usage: python -m foveate.timm SCRIPT.py [ARGUMENTS]; got {got}\n")
        raise SystemExit(2)
    del sys.argv[0]
    sys.path.insert(0, str(Path(sys.argv[0]).resolve().parent))
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
