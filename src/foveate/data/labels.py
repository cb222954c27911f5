"""Lists of labels: CSV or JSON files that say which image is of which class, where no class folders do.

Such lists come with sets of Hugging Face (``metadata.csv``, ``metadata.jsonl``), Kaggle (``train.csv`` beside a folder
``train/``) and Roboflow (``_classes.csv``).
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from foveate.data.files import check_inside, name_below
from foveate.data.layout import Found

__all__ = ["read_lists"]

METADATA = ("metadata.csv", "metadata.jsonl")
OTHERS = ("labels.csv", "labels.json", "labels.jsonl", "_classes.csv")
FILE_COLUMNS = (
    "file_name",
    "filename",
    "file",
    "file_path",
    "filepath",
    "path",
    "image",
    "image_id",
    "image_name",
    "id",
)
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target")


def read_lists(found: Mapping[str, Found], top: Path) -> dict[str, list[tuple[str, str]]] | None:
    """Return the path and the class of each image of each split, if lists say so; None if class folders do.

    ``metadata.csv`` and ``metadata.jsonl`` go before class folders if they have labels, as with Hugging Face; other
    lists are looked at where there are no class folders. The list of a split lies in its folder, or beside it under the
    name of the folder; one in ``top`` may be of all splits, and then names files by their paths from there.

    Args:
        found: The images of each split.
        top: The folder of the data.

    Raises:
        ValueError: A list is malformed, there is more than one, it has two labels for an image, or images and list do
            not correspond.
    """
    flat = len(found["train"].filled) < 2
    labelled: dict[str, list[tuple[str, str]]] = {}
    shared = None if found["train"].root == top else _only([top / name for name in (*METADATA, *flat * OTHERS)], top)
    rows = {} if shared is None else _rows(shared)
    unused = set(rows)
    for split, images in found.items():
        names = [images.root / name for name in (*METADATA, *flat * OTHERS)]
        beside = [*dict.fromkeys(top / f"{name}.csv" for name in (images.root.name, split))] * flat
        own = _only(names, top) or _only(beside, top)
        if own is None and not rows:
            continue
        keys = _keys(images, top if own is None else own.parent, by_name=own is not None)
        listed = _rows(own) if own is not None else {name: label for name, label in rows.items() if name in keys}
        if not listed:
            continue
        if own is None:
            unused -= set(listed)
        labelled[split] = _matched(listed, images, keys, own or shared)
    if unused:
        raise ValueError(
            f"{shared}: no split has the image {min(unused)!r}, nor {len(unused) - 1} others that it lists; it "
            f"must name images by their paths from {top}, or lie in the folder of a split"
        )
    if not labelled:
        return None
    if lacking := [str(found[split].root) for split in found if split not in labelled]:
        raise ValueError(
            f"{', '.join(lacking)} has no list of labels, and other folders have; add one, or move it away"
        )
    return labelled


def _only(paths: Iterable[Path], top: Path) -> Path | None:
    """Return the one list that is there and has labels."""
    there = [path for path in paths if path.is_file()]
    for path in there:
        check_inside(str(path), top)
    there = [path for path in there if path.name not in METADATA or _columns(_records(path), path) is not None]
    if len(there) > 1:
        raise ValueError(f"{' and '.join(map(str, there))} are lists of labels; keep one")
    return there[0] if there else None


def _keys(images: Found, base: Path, *, by_name: bool) -> dict[str, set[str]]:
    """Return the paths of the images by what a list may call them: a path from its folder goes before a mere name."""
    exact: dict[str, set[str]] = {}
    names: dict[str, set[str]] = {}
    for path in images.all_paths():
        for key in {name_below(path, base), name_below(path, images.root if by_name else base)}:
            exact.setdefault(key, set()).add(path)
        if by_name:
            file = os.path.basename(path)
            for key in {file, os.path.splitext(file)[0]}:
                names.setdefault(key, set()).add(path)
    return names | exact


def _matched(
    listed: Mapping[str, str], images: Found, keys: Mapping[str, set[str]], source: Path | None
) -> list[tuple[str, str]]:
    """Return path and class of each image, in the order of the paths."""
    labels: dict[str, str] = {}
    for name, label in listed.items():
        paths = keys.get(name, set())
        if len(paths) != 1:
            what = "no image" if not paths else f"more than one image, such as {min(paths)}, that could be"
            raise ValueError(f"{source}: there is {what} {name!r} in {images.root}; mend the name, or remove the line")
        path = next(iter(paths))
        if labels.setdefault(path, label) != label:
            raise ValueError(f"{source}: {path} is listed as {labels[path]!r} and as {label!r}; an image has one class")
    if without := [path for path in images.all_paths() if path not in labels]:
        raise ValueError(
            f"{source} has no label for {len(without)} images, such as {without[0]}; add them, or move those"
        )
    return sorted(labels.items())


def _rows(path: Path) -> dict[str, str]:
    """Return the label of each file in a list, as it calls them.

    Raises:
        ValueError: The list is malformed, or a file is listed twice or without a label.
    """
    records = _records(path)
    columns = _columns(records, path)
    if columns is None:
        raise ValueError(
            f"{path} has the columns {', '.join(records[0]) if records else '(none)'}; it must have one of "
            f"{', '.join(FILE_COLUMNS)} and one of {', '.join(LABEL_COLUMNS)}"
        )
    file_column, label_column = columns
    rows: dict[str, str] = {}
    for number, record in enumerate(records, start=1):
        name = record.get(file_column)
        name = ("" if name is None else str(name)).replace("\\", "/").removeprefix("./")
        label = _one_hot(record, file_column) if label_column is None else record.get(label_column)
        if isinstance(label, list | dict | float) or label is None or not str(label).strip() or not name:
            raise ValueError(f"{path}, entry {number}: {name!r} must have one class; got {label!r}")
        if rows.setdefault(name, str(label).strip()) != str(label).strip():
            raise ValueError(f"{path}, entry {number}: {name!r} was listed as {rows[name]!r} before; got {label!r}")
    return rows


def _columns(records: list[dict[str, Any]], path: Path) -> tuple[str, str | None] | None:
    """Return the column of files and that of labels, which is None for one column per class; None if there are none."""
    names = list(records[0]) if records else []
    files, labels = ([name for name in names if name.lower() in known] for known in (FILE_COLUMNS, LABEL_COLUMNS))
    if path.name == "_classes.csv" and files:
        return files[0], None
    if not files or not labels:
        return None
    if len(files) > 1 or len(labels) > 1:
        raise ValueError(f"{path} has the columns {', '.join(files + labels)}; keep one of files and one of labels")
    return files[0], labels[0]


def _one_hot(record: Mapping[str, Any], file_column: str) -> str | None:
    """Return the only class whose column has a 1."""
    marked = [name for name, value in record.items() if name != file_column and str(value).strip() not in ("0", "")]
    return marked[0] if len(marked) == 1 and str(record[marked[0]]).strip() == "1" else None


def _records(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a CSV file, of a JSON list or mapping, or of JSON lines."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            if path.suffix == ".csv":
                found: Any = [{str(k).strip(): v for k, v in row.items()} for row in csv.DictReader(file, strict=True)]
            elif path.suffix == ".jsonl":
                found = [json.loads(line) for line in file if line.strip()]
            else:
                found = json.load(file)
    except (csv.Error, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a list of labels in UTF-8: {error}") from error
    if isinstance(found, dict):
        found = [{"file": name, "label": label} for name, label in found.items()]
    if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
        raise ValueError(f"{path} must hold objects with a file and a label")
    return found
