"""Finding the image files of a folder, by name and, without an extension, by content."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

__all__ = ["EXTENSIONS", "NOT_READ", "check_inside", "find_files", "image_ending", "is_image", "is_junk", "name_below"]

EXTENSIONS = (*IMG_EXTENSIONS, ".gif", ".jfif", ".jpe", ".pjpeg", ".pjp", ".apng", ".dib", ".pnm", ".pbm")
"""Endings of images that are read, upper or lower case."""

NOT_READ_ENDINGS = """
.heic .heif .hif .avif .jxl .jp2 .j2k .jpf .jpx .svg .psd .xcf .tga .ico .pcx .exr .hdr .dds .eps .dcm .dng .cr2
.cr3 .nef .arw .orf .rw2 .raf .nrw .pef .srw .srf .sr2 .3fr .fff .iiq .rwl .mrw .x3f .erf .kdc .dcr .mef .gpr
"""
NOT_READ = tuple(NOT_READ_ENDINGS.split())
"""Endings of images in formats that are not read. Such files count as images that cannot be read: they are named, and
never left out in silence."""

NO_IMAGES_ENDINGS = """
.txt .md .rst .csv .tsv .json .jsonl .xml .yaml .yml .html .htm .pdf .doc .docx .xls .xlsx .db .ini .log .lnk .url
.zip .tar .gz .tgz .bz2 .xz .7z .rar .npy .npz .mat .pkl .h5 .hdf5 .parquet .py .ipynb .sh .m .names .mp4 .avi
.mov .mp3 .wav .bak .tmp .part .crdownload .swp ~ .xmp .aae .thm .ovr
"""
COPIES = tuple(f"{ending}{copy}" for ending in IMG_EXTENSIONS for copy in (".orig", "_original"))
NO_IMAGES = (*NO_IMAGES_ENDINGS.split(), *COPIES)
"""Endings of files that are passed over unopened, copies and previews of images beside them included. Of others, such
as ``x.jpg_large`` or a number without an ending, the first bytes decide."""

IMAGES = frozenset((*EXTENSIONS, *NOT_READ))

JUNK = frozenset({"__macosx", "@eadir", "thumbs.db", "desktop.ini", "lost+found", "$recycle.bin", "__pycache__"})
"""What operating systems, network drives and notebooks leave behind."""

SIGNATURES = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG\r\n\x1a\n": ".png",
    b"GIF8": ".gif",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}
CONTAINERS = {b"WEBP": ".webp", b"ftyphei": ".heic", b"ftypmif": ".heic", b"ftypavif": ".avif"}
"""The same, not at the very beginning: after the size of a RIFF or ISO file."""


def is_junk(name: str) -> bool:
    """Return whether a file or folder of this name is hidden, or no part of anybody's data."""
    return name.startswith(".") or name.lower() in JUNK


def is_image(name: str) -> bool:
    """Return whether the ending of a name is that of an image, read or not."""
    return name[name.rfind(".") :].lower() in IMAGES and name[0] != "."


def image_ending(path: str) -> str:
    """Return the ending that a file deserves, in lower case; an empty one if it is not taken for an image.

    It is that of its name if that is known, else what its first bytes are.
    """
    name = os.path.basename(path).lower()
    if is_image(name):
        return os.path.splitext(name)[1]
    if is_junk(name) or name.endswith(NO_IMAGES) or not os.path.isfile(path):
        return ""
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError:
        return ""
    found = (ending for start, ending in SIGNATURES.items() if head.startswith(start))
    return next(found, next((ending for start, ending in CONTAINERS.items() if start in head[4:12]), ""))


def name_below(path: str, folder: str | Path) -> str:
    """Return the path of a file from a folder that it is below, with ``/``."""
    return path.removeprefix(os.path.join(str(folder), "")).replace(os.sep, "/")


def find_files(folder: str | Path, top: str | Path) -> Iterator[tuple[str, list[str]]]:
    """Yield ``folder`` and the folders below it, each with the names of its files, in no particular order.

    Hidden folders are passed over, and those that systems leave behind. Links are followed, unless they lead out of
    ``top``: a folder that somebody else packed could make any file of this machine an image of its own, whose content
    then stands in a picture or in a message.

    Raises:
        ValueError: A link leads out of ``top``, or to a folder that it stands in.
    """
    check_inside(str(folder), top)
    yield from _below(str(folder), top, (os.path.realpath(folder),))


def _below(folder: str, top: str | Path, above: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """Yield what `find_files` does; ``above`` are the true paths of ``folder`` and of those that it was reached by."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                check_inside(entry.path, top)
            if not entry.is_dir():
                names.append(entry.name)
                continue
            if is_junk(entry.name):
                continue
            path = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(above[-1], entry.name)
            if path in above:
                raise ValueError(f"{entry.path} is a link to {path}, which it stands in; remove it")
            yield from _below(entry.path, top, (*above, path))
    yield folder, names


def check_inside(path: str, top: str | Path) -> None:
    """Raise a `ValueError` if links on the way lead from ``path`` out of ``top``."""
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(os.path.realpath(top)):
        raise ValueError(
            f"{path} is, or is behind, a link to {target}, outside of {top}; "
            "links are followed inside of the folder only: put there what it leads to, or a hard link"
        )
