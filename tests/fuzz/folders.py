"""Folders of images as people have them: the images of each class in each split, or exit code 2 and a message.

A folder is made of a plain layout, some harmless changes, and perhaps one that makes it ambiguous or wrong. What must
come of it is known from how it was made: nothing here asks the library.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import random
import tempfile
import unicodedata
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from foveate import cli
from foveate.data import open_data
from tests.fuzz.outcome import Outcome, progress

NAMES = {
    "train": ("train", "Train", "TRAIN", "training", "Training"),
    "val": ("val", "Val", "valid", "validation", "Validation", "dev", "VALID"),
    "test": ("test", "Test", "testing", "Testing", "eval", "evaluation"),
}
CLASSES = (
    *(
        "ant",
        "bee",
        "Bee",
        "cat",
        "dog",
        "0",
        "1",
        "2",
        "10",
        "007",
        "café",
        "naïve",
        "ÅNGSTRÖM",
        "한국",
        "東京",
        "with space",
    ),
    *(
        "train_station",
        "bullet train",
        "a.b",
        "x-ray",
        "n01440764",
        "images of it",
        "-",
        "O'Neil",
        "b\udcffd",
        "#1",
        "%s",
    ),
)
ENDINGS = (".png", ".PNG", ".jpg", ".JPEG", ".jfif", ".jpe", ".webp", ".gif", ".bmp", ".tif", "", ".jpg_large", ".1")
SNIFFED = ("", ".jpg_large", ".1")
"""Endings of which the content decides; formats without a clear signature are not written under them."""
KINDS = ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP")


@dataclass
class Layout:
    """A folder to be made.

    Attributes:
        splits: The name of the folder of each split; none if it is divided by the library.
        images: For each split and class, the paths of the images from the folder of the split.
    """

    splits: dict[str, str]
    images: dict[str, dict[str, list[str]]]
    others: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    refused: bool = False

    def place(self, split: str) -> str:
        """Return the folder of a split, with a slash."""
        return f"{self.splits[split]}/" if self.splits else ""


def run(trials: int, seed: int) -> Outcome:
    """Open ``trials`` folders."""
    outcome = Outcome(trials=trials, counts={"opened": 0, "exit code 2": 0})
    warnings.simplefilter("ignore")
    for number in progress(range(trials), "folders"):
        rng = random.Random(f"{seed}-{number}")
        layout = plain(rng)
        with tempfile.TemporaryDirectory() as base:
            top = Path(base) / "photos"
            if number % 6 == 0:
                listed(layout, rng)
            else:
                for harmless in rng.sample(HARMLESS, rng.randint(0, 3)):
                    harmless(layout, rng)
            if number % 2:
                WRONG[number // 2 % len(WRONG)](layout, rng)
                layout.refused = True
            contents = written(layout, top, rng)
            fault = _fault(layout, top, contents)
        outcome.count("exit code 2" if layout.refused else "opened")
        outcome.check(not fault, f"{number}: {', '.join(layout.done) or 'plain'}: {fault}")
    return outcome


def plain(rng: random.Random) -> Layout:
    """Return a layout that is right: splits or none, some classes."""
    classes = rng.sample(CLASSES, rng.randint(2, 5))
    chosen = rng.choice([(), ("train",), ("train", "val"), ("train", "test"), ("train", "val", "test")])
    splits = {split: rng.choice(NAMES[split]) for split in chosen}
    images = {
        split: {name: [f"{name}/{i}{rng.choice(ENDINGS[:2])}" for i in range(rng.randint(5, 7))] for name in classes}
        for split in chosen or ("train",)
    }
    return Layout(splits, images)


def written(layout: Layout, top: Path, rng: random.Random) -> dict[str, dict[str, set[bytes]]]:
    """Write the folder; return the contents of the images of each class in each split."""
    contents: dict[str, dict[str, set[bytes]]] = {}
    for split, classes in layout.images.items():
        for name, paths in classes.items():
            for path in paths:
                content = picture(rng, os.path.splitext(path)[1])
                _write(top / (layout.place(split) + path), content)
                of_class = unicodedata.normalize("NFC", name)
                contents.setdefault(split, {}).setdefault(of_class, set()).add(content)
    for path, content in layout.others.items():
        _write(top / path, content)
    for path, place in layout.moved.items():
        if (top / path).exists():
            (top / place).parent.mkdir(parents=True, exist_ok=True)
            (top / path).rename(top / place)
    for path in layout.empty:
        (top / path).mkdir(parents=True, exist_ok=True)
    for path, target in layout.links.items():
        if (top / path).exists():
            continue  # the class is one that the split has without an image
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).symlink_to(target)
    return contents


def picture(rng: random.Random, ending: str) -> bytes:
    """Return an image like no other, in any format whatever its ending is."""
    pixels = np.random.default_rng(rng.getrandbits(32)).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    kind = rng.choice(KINDS[:-1] if ending in SNIFFED else KINDS)
    animated = {"save_all": True, "append_images": [Image.fromarray(255 - pixels)]} if kind in ("WEBP", "GIF") else {}
    Image.fromarray(pixels).save(buffer, kind, **animated)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _fault(layout: Layout, top: Path, contents: dict[str, dict[str, set[bytes]]]) -> str:
    """Return what is wrong about what comes of a folder; nothing, if all is well."""
    if layout.refused:
        said = io.StringIO()
        out = top.parent / "run"
        command = ["train", "test_resnet", f"--data={top}", f"--out={out}", "--epochs=1", "--device=cpu"]
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = cli.main(command)
        if code != 2 or out.exists():
            return f"exit code {code}"
        return "" if str(top) in said.getvalue() else f"a message that does not name the folder: {said.getvalue()}"
    try:
        data = open_data(top)
    except ValueError as error:
        return f"refused: {error}"
    found: dict[str, dict[str, set[bytes]]] = {}
    for split in ("train", "val", "test"):
        images = getattr(data, split)
        for index, (path, label) in enumerate([] if images is None else images.samples):
            part = "train" if split == "val" and "val" not in contents else split
            found.setdefault(part, {}).setdefault(data.classes[label], set()).add(Path(path).read_bytes())
            if index == 0:
                images[0]  # it can be read
    if set(data.classes) != set(contents["train"]):
        return f"the classes are {data.classes}"
    return "" if found == contents else f"other images: {_sizes(found)} and not {_sizes(contents)}"


def _sizes(found: dict[str, dict[str, set[bytes]]]) -> dict[str, dict[str, int]]:
    return {split: {name: len(images) for name, images in classes.items()} for split, classes in found.items()}


HARMLESS: list[Callable[[Layout, random.Random], None]] = []
WRONG: list[Callable[[Layout, random.Random], None]] = []


def change(function: Callable[[Layout, random.Random], None]) -> Callable[[Layout, random.Random], None]:
    """Note what was done, by the first line of the function's docstring."""

    def noted(layout: Layout, rng: random.Random) -> None:
        function(layout, rng)
        layout.done.append((function.__doc__ or "").partition("\n")[0].rstrip("."))

    (WRONG if function.__name__.startswith("wrong_") else HARMLESS).append(noted)
    return noted


def _any_class(layout: Layout, rng: random.Random) -> tuple[str, str]:
    """Return the place of a split, and that of one of its classes."""
    split = rng.choice(list(layout.images))
    place = layout.place(split)
    return place, place + os.path.dirname(rng.choice([paths[0] for paths in layout.images[split].values()]))


@change
def junk(layout: Layout, rng: random.Random) -> None:
    """What systems leave behind."""
    place, of_class = _any_class(layout, rng)
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
            "_classes.csv": _csv(
                ("filename", *classes), [(file, *(int(name == c) for c in classes)) for file, name in rows]
            ),
            "beside": _csv(("image_id", "label"), [(os.path.splitext(file)[0], name) for file, name in rows]),
        }
        path = f"{layout.splits[split]}.csv" if kind == "beside" else layout.place(split) + kind
        lists[split] = path
        layout.others[path] = text.get(kind, _csv(("file_name", "label"), rows))
    layout.done.append(f"a list of labels, {kind}")
    return lists["train"]


def _csv(header: tuple[str, ...], rows: list[tuple]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *rows])
    return text.getvalue().encode()


def _all(layout: Layout, rename: Callable[[str, str], str]) -> None:
    """Give each image of each split another path."""
    for split, classes in layout.images.items():
        for paths in classes.values():
            paths[:] = [rename(split, path) for path in paths]


@change
def wrong_nested(layout: Layout, rng: random.Random) -> None:
    """All of it one to three folders further down."""
    folder = "/".join(rng.choices(["x", "data", "archive", "photos"], k=rng.randint(1, 3)))
    places = {split: layout.place(split) for split in layout.images}
    _all(layout, lambda split, path: f"{folder}/{places[split]}{path}")
    layout.splits, layout.empty = {}, []


@change
def wrong_beside(layout: Layout, rng: random.Random) -> None:
    """Images in a folder beside the splits, or in no class."""
    folder = rng.choice(["unlabelled", "extra/ant", "cats", "masks"]) if layout.splits else "."
    layout.others[f"{folder}/0.png"] = picture(rng, ".png")


@change
def wrong_loose(layout: Layout, rng: random.Random) -> None:
    """Images in the folder of a split itself."""
    layout.others[f"{layout.place(rng.choice(list(layout.images)))}loose.jpg"] = picture(rng, ".jpg")


@change
def wrong_classes_first(layout: Layout, rng: random.Random) -> None:
    """Class folders that hold the splits."""
    names = {split: layout.splits.get(split, "train") for split in layout.images}
    _all(layout, lambda split, path: "{0}/{2}/{1}".format(*path.partition("/")[::2], names[split]))
    layout.splits = {}


@change
def wrong_domains_first(layout: Layout, rng: random.Random) -> None:
    """Folders of another kind above the classes."""
    places = {split: layout.place(split) for split in layout.images}
    layout.others |= {
        f"{places[split]}{domain}/{path}": picture(rng, "")
        for split, classes in layout.images.items()
        for domain in ("amazon", "dslr")
        for paths in classes.values()
        for path in paths
    }
    for split in layout.images:
        layout.images[split] = {}


@change
def wrong_other_words(layout: Layout, rng: random.Random) -> None:
    """Splits called by words that are not known, the classes in them or flat."""
    pattern = rng.choice(["{}_set", "seg_{}", "{}2017", "my {} images", "{}1"])
    names = {split: pattern.format(split) for split in layout.images}
    if len(names) == 1:
        layout.images["test"] = {name: list(paths) for name, paths in layout.images["train"].items()}
        names["test"] = pattern.format("test")
    layout.splits = names


@change
def wrong_two(layout: Layout, rng: random.Random) -> None:
    """Two folders of the same split."""
    split = rng.choice(list(layout.images)) if layout.splits else "val"
    one, other = rng.sample(NAMES[split], 2)
    layout.splits = layout.splits and {**layout.splits, split: one}
    layout.others |= {f"{name}/ant/0.png": picture(rng, ".png") for name in (one, other)}


@change
def wrong_no_train(layout: Layout, rng: random.Random) -> None:
    """No folder to train on."""
    layout.splits = {**layout.splits, "train": rng.choice(NAMES["val"][:2])}
    layout.images = {"train": layout.images["train"]}
    layout.splits = {"train": layout.splits["train"]}


@change
def wrong_class(layout: Layout, rng: random.Random) -> None:
    """A class that the training images lack, new or spelt in another way."""
    split = next((split for split in layout.images if split != "train"), None)
    if split is None:
        layout.splits, split = {"train": "train"}, "val"
    folder = rng.choice(["new", next(iter(layout.images["train"])).swapcase() + " ", "Test"])
    layout.others[f"{layout.splits.get(split, split)}/{folder}/0.png"] = picture(rng, ".png")


@change
def wrong_empty_class(layout: Layout, rng: random.Random) -> None:
    """A class without an image to train on."""
    layout.empty.append(f"{layout.place('train')}emptied")


@change
def wrong_formats(layout: Layout, rng: random.Random) -> None:
    """Images in formats that are not read."""
    _, of_class = _any_class(layout, rng)
    layout.others[f"{of_class}/IMG_1{rng.choice(['.heic', '.HEIC', '.avif', '.jp2', '.svg', '.dcm'])}"] = (
        b"\0\0\0\x18ftyp"
    )


@change
def wrong_split_among_classes(layout: Layout, rng: random.Random) -> None:
    """A folder called like a split among the classes."""
    name = rng.choice(NAMES["test"])
    layout.others |= {f"{layout.place('train')}{name}/{i}.png": picture(rng, ".png") for i in range(3)}


@change
def wrong_link(layout: Layout, rng: random.Random) -> None:
    """A link out of the folder, of a file, a class or a split."""
    place, of_class = _any_class(layout, rng)
    layout.links[rng.choice([f"{of_class}/linked.png", f"{place}linked", "Validation.d/linked"])] = "/etc"


@change
def wrong_same_split(layout: Layout, rng: random.Random) -> None:
    """A split that is a link to another."""
    layout.images = {"train": layout.images["train"]}
    layout.splits, layout.others, layout.empty = {"train": rng.choice(NAMES["train"])}, {}, []
    layout.links[rng.choice(NAMES["val"] + NAMES["test"])] = layout.splits["train"]


@change
def wrong_detection(layout: Layout, rng: random.Random) -> None:
    """Images of a set for detection or segmentation."""
    places = {split: layout.place(split) for split in layout.images}
    layout.others |= {f"{place}labels/0.txt": b"0 0.5 0.5 1 1" for place in places.values()}
    if rng.random() < 0.5:
        layout.others |= {f"{place}masks/0.png": picture(rng, ".png") for place in places.values()}
    _all(layout, lambda split, path: f"images/{path.replace('/', '-')}")


@change
def wrong_list(layout: Layout, rng: random.Random) -> None:
    """A list that lacks an image, names one that is not there, or gives an image two classes."""
    path = listed(layout, rng)
    some = next(iter(layout.images["train"].values()))
    how = rng.randrange(3)
    if how == 0:
        layout.others[f"{layout.place('train')}unlisted.png"] = picture(rng, ".png")
    elif how == 1:
        some.pop()
    else:
        layout.others[path] = layout.others[path][: len(layout.others[path]) // 2]
