"""Changes after which a folder of images means the same."""

from __future__ import annotations

import json
import os
import random
import unicodedata

from tests.fuzz.layouts import ENDINGS, Layout, any_class, change, csv_of, picture


@change
def junk(layout: Layout, rng: random.Random) -> None:
    """What systems leave behind."""
    place, of_class = any_class(layout, rng)
    photo = picture(rng, ".png")
    layout.others |= {
        f"{of_class}/._0.png": b"\0\5\x16\7",
        f"{of_class}/.DS_Store": photo,
        f"{of_class}/Thumbs.db": photo,
        f"{of_class}/.ipynb_checkpoints/0-checkpoint.png": photo,
        f"{of_class}/@eaDir/0.png": photo,
        f"{place}.cache/0.png": photo,
        f"__MACOSX/{of_class}/0.png": photo,
        f"{of_class}/README": b"about these images",
        f"{of_class}/list.csv": b"a,b\n",
        "LICENSE": b"free",
        "photos.zip": b"PK\3\4",
    }


@change
def endings(layout: Layout, rng: random.Random) -> None:
    """Unusual endings, upper case, none, or those of other formats."""
    for classes in layout.images.values():
        for paths in classes.values():
            paths[:] = [os.path.splitext(path)[0] + rng.choice(ENDINGS) for path in paths]


@change
def deeper(layout: Layout, rng: random.Random) -> None:
    """Images deeper in the class folders, all in images/ or each class in folders of its own."""
    own = rng.random() < 0.5
    for classes in layout.images.values():
        for number, paths in enumerate(classes.values()):
            below = f"{number}/x" if own else "images"
            paths[:] = [os.path.join(os.path.dirname(path), below, os.path.basename(path)) for path in paths]


@change
def forms(layout: Layout, rng: random.Random) -> None:
    """Class folders in other forms of Unicode in each split."""
    for classes in layout.images.values():
        form = rng.choice(["NFC", "NFD"])
        for paths in classes.values():
            paths[:] = [unicodedata.normalize(form, path) for path in paths]


@change
def fewer(layout: Layout, rng: random.Random) -> None:
    """A class that other splits than the training one lack, or have without an image."""
    for split in layout.images:
        if split != "train":
            name = rng.choice(list(layout.images[split]))
            folder = layout.images[split].pop(name)[0].partition("/")[0]
            layout.empty += [layout.place(split) + folder] if rng.random() < 0.5 else []


@change
def annotations(layout: Layout, rng: random.Random) -> None:
    """Folders without images beside the splits, and captions."""
    if layout.splits:
        layout.others |= {"annotations/a.xml": b"<a/>", "labels/0.txt": b"0 1 1 1 1"}
    layout.others["metadata.csv"] = b"file_name,text\n0.png,something\n"


@change
def linked(layout: Layout, rng: random.Random) -> None:
    """A class folder that is a link to one that is hidden."""
    split = rng.choice(list(layout.images))
    place = layout.place(split)
    folder = rng.choice([paths[0] for paths in layout.images[split].values()]).partition("/")[0]
    layout.links[place + folder] = os.path.join("..", *[".."] * place.count("/"), "photos", ".kept", folder)
    layout.moved[place + folder] = f".kept/{folder}"


def listed(layout: Layout, rng: random.Random) -> str:
    """Give the images numbers for names, and list their labels in a file of many kinds; return that of training."""
    lists = {}
    kind = rng.choice(["metadata.csv", "metadata.jsonl", "labels.csv", "labels.json", "_classes.csv", "beside"])
    kind = "labels.csv" if kind == "beside" and not layout.splits else kind
    for split, classes in layout.images.items():
        classes.pop("b\udcffd", None)  # lists are in UTF-8
        rows: list[tuple[str, str]] = []
        for name, paths in classes.items():
            paths[:] = [f"{len(rows) + i:04d}{os.path.splitext(path)[1]}" for i, path in enumerate(paths)]
            rows += [(path, name) for path in paths]
        rng.shuffle(rows)
        text = {
            "metadata.jsonl": "\n".join(json.dumps({"file_name": file, "label": name}) for file, name in rows).encode(),
            "labels.json": json.dumps(dict(rows)).encode(),
            "_classes.csv": csv_of(
                ("filename", *classes), [(file, *(int(name == c) for c in classes)) for file, name in rows]
            ),
            "beside": csv_of(("image_id", "label"), [(os.path.splitext(file)[0], name) for file, name in rows]),
        }
        path = f"{layout.splits[split]}.csv" if kind == "beside" else layout.place(split) + kind
        lists[split] = path
        layout.others[path] = text.get(kind, csv_of(("file_name", "label"), rows))
    layout.done.append(f"a list of labels, {kind}")
    return lists["train"]


HARMLESS = [junk, endings, deeper, forms, fewer, annotations, linked]
