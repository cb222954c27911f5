"""Changes after which a folder of images is ambiguous or wrong."""

from __future__ import annotations

import random

from tests.fuzz.harmless_folders import listed
from tests.fuzz.layouts import NAMES, Layout, any_class, change, picture, renamed_all


@change
def wrong_nested(layout: Layout, rng: random.Random) -> None:
    """All of it one to three folders further down."""
    folder = "/".join(rng.choices(["x", "data", "archive", "photos"], k=rng.randint(1, 3)))
    places = {split: layout.place(split) for split in layout.images}
    renamed_all(layout, lambda split, path: f"{folder}/{places[split]}{path}")
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
    renamed_all(layout, lambda split, path: "{0}/{2}/{1}".format(*path.partition("/")[::2], names[split]))
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
    _, of_class = any_class(layout, rng)
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
    place, of_class = any_class(layout, rng)
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
    renamed_all(layout, lambda split, path: f"images/{path.replace('/', '-')}")


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


WRONG = [
    wrong_nested,
    wrong_beside,
    wrong_loose,
    wrong_classes_first,
    wrong_domains_first,
    wrong_other_words,
    wrong_two,
    wrong_no_train,
    wrong_class,
    wrong_empty_class,
    wrong_formats,
    wrong_split_among_classes,
    wrong_link,
    wrong_same_split,
    wrong_detection,
    wrong_list,
]
