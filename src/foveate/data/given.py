"""Unlabelled images named by a user: found in folders, given unique names, and read upright."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image

from foveate._images import WHITE
from foveate._paths import expanded
from foveate.data.decoding import UnreadableImageError, declared_white, naming, open_image, to_rgb, without_orientation
from foveate.data.files import EXTENSIONS, find_files, image_ending
from foveate.data.splitting import equally_spaced

__all__ = [
    "SOFTWARE",
    "GivenImage",
    "find_images",
    "is_ours",
    "read_upright",
    "slugs",
    "turned_upright",
    "upright_rgb",
    "upright_size",
]


SOFTWARE = "Software"
"""PNG text key for the software that wrote a picture."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation but 1, which is upright."""
LONGEST = 60
"""Maximal length in bytes of one part of a result's file name."""


@dataclass(frozen=True)
class GivenImage:
    """An image file."""

    path: Path
    slug: str
    """What its results are called: the name of the file without its ending, and a number where that would not do."""

    @property
    def folder(self) -> str:
        """Name of the folder that it is in, composed (NFC): of sorted images, the class."""
        return unicodedata.normalize("NFC", self.path.absolute().parent.name)


def find_images(paths: Sequence[str], most: int | None) -> list[GivenImage]:
    """Return the files among ``paths`` and the images in the folders among them and below, in the order of their names.

    Args:
        paths: Files, taken whatever their names, and folders.
        most: Return only so many, at equal distances; all if not given.

    Raises:
        ValueError: There is no such file, or no image in a folder.
    """
    files: list[Path] = []
    for given in paths:
        path = expanded(given)
        if path.is_dir():
            files += _images_in(path)
        elif path.exists():
            files.append(path)
        else:
            raise ValueError(f"images: there is no file or folder {given}")
    files = list(dict.fromkeys(files))
    files = [files[index] for index in equally_spaced(len(files), most)]
    return [GivenImage(path, slug) for path, slug in zip(files, slugs(path.stem for path in files), strict=True)]


def slugs(names: Iterable[str], taken: Collection[str] = ()) -> list[str]:
    """Turn names into different names of files: what is no letter, digit, dot or underscore becomes a hyphen.

    Each has at most `LONGEST` bytes in UTF-8: file systems take names of 255, and results are called after three.
    """
    found: list[str] = []
    used = {name.lower() for name in taken}
    for name in names:
        plain = re.sub(r"[^\w.]+", "-", name).strip("-.")
        plain = plain.encode()[:LONGEST].decode(errors="ignore") or "image"
        slug, number = plain, 1
        while slug.lower() in used:  # some file systems do not tell upper from lower case
            number += 1
            slug = f"{plain}-{number}"
        used.add(slug.lower())
        found.append(slug)
    return found


def read_upright(path: Path, *, intensity_range: Sequence[float] | None = None) -> Image.Image:
    """Decode an image as RGB with its EXIF orientation applied; ``intensity_range`` as in `foveate.data.open_data`.

    Raises:
        UnreadableImageError: The file is damaged, truncated or no image.
    """
    with open_image(path) as image:
        return to_rgb(turned_upright(image), intensity_range=intensity_range)


def upright_rgb(image: Image.Image, *, intensity_range: Sequence[float] | None = None) -> Image.Image:
    """Return what `read_upright` returns for the file that ``image`` was opened from, or for pixels that have none.

    Raises:
        UnreadableImageError: The file is damaged or truncated, or its pixels have no defined range.
    """
    with naming("image"):
        turned = turned_upright(image)
        if (white := declared_white(image)) is not None:
            turned.info[WHITE] = white
        return to_rgb(turned, intensity_range=intensity_range)


def upright_size(path: Path) -> tuple[int, int]:
    """Return height and width of what `read_upright` would return, from the head of the file.

    Raises:
        UnreadableImageError: The file is no image.
    """
    with open_image(path) as image:
        turned = _orientation(image) in (5, 6, 7, 8)  # which lay the image on its side
        turned &= image.format != "TIFF"  # whose size Pillow gives as it will be when it has turned it
        return (image.width, image.height) if turned else (image.height, image.width)


def turned_upright(image: Image.Image) -> Image.Image:
    """Return a copy with the EXIF orientation applied; as it is where the tag is damaged, for it is only a tag."""
    image.load()
    turn = TURNS.get(_orientation(image))
    if turn is None:
        return image.copy()
    return without_orientation(image.transpose(turn))


def _orientation(image: Image.Image) -> int:
    with suppress(Exception):  # on a damaged tag Pillow raises whatever comes: SyntaxError, struct.error, …
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    return 1


def is_ours(path: Path) -> bool:
    """Tell whether a file is a picture that `foveate explain` has written."""
    try:
        with open_image(path, max_pixels=sys.maxsize) as image:  # nothing of it is decoded
            return str(image.info.get(SOFTWARE, "")).startswith("foveate ")
    except UnreadableImageError:
        return False


def _images_in(folder: Path) -> list[Path]:
    files = (Path(below, name) for below, names in find_files(folder, folder) for name in names)
    found = [path for path in files if image_ending(str(path))]
    found = [path for path in found if path.suffix != ".png" or not is_ours(path)]  # as of an earlier call
    found.sort(key=lambda path: (path.parent.parts, path.name))
    if not found:
        raise ValueError(f"images: there is no image in {folder}; names of images end in {', '.join(EXTENSIONS)}")
    return found
