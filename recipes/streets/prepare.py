"""Makes the small street scenes of the experiment: ``python recipes/streets/prepare.py SOURCE --out data/streets``.

``SOURCE`` holds CamVid as `foveate.data.dense.open_segmentation` reads it: ``train``, ``val`` and ``test``, each with
``images`` and ``masks`` of 480×360 pixels. Images are reduced to 160×120 by Lanczos, masks by their nearest pixels.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from PIL import Image

SIZE = (160, 120)


def main() -> int:
    """Write the reduced set, whole or not at all; return the exit code."""
    parser = argparse.ArgumentParser(prog="prepare.py", description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder with train, val and test")
    parser.add_argument("--out", type=Path, default=Path("data/streets"), help="where they are put")
    given = parser.parse_args()
    files = sorted(given.source.glob("*/images/*")) + sorted(given.source.glob("*/masks/*"))
    if not files:
        sys.stderr.write(f"prepare.py: error: there is nothing in {given.source}/*/images\n")
        return 2
    if given.out.exists():
        sys.stdout.write(f"{given.out} is there already\n")
        return 0
    partial = given.out.with_name(f".{given.out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for file in files:
        target = partial / file.relative_to(given.source)
        target.parent.mkdir(parents=True, exist_ok=True)
        how = Image.Resampling.NEAREST if file.parent.name == "masks" else Image.Resampling.LANCZOS
        try:
            with Image.open(file) as image:
                image.resize(SIZE, how).save(target)
        except OSError as error:
            sys.stderr.write(f"prepare.py: error: {file}: {error}\n")
            return 2
    for name in ("classes.csv", "classes.txt"):
        if (given.source / name).is_file():
            shutil.copy(given.source / name, partial / name)
    partial.replace(given.out)
    sys.stdout.write(f"{len(files)} files in {given.out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
