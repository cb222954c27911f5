"""Fingerprint of a run's data: the classes and the names of the images, checked when it is resumed."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from foveate.io.files import write_bytes

__all__ = ["IMAGES", "DataFingerprint"]

IMAGES = "images.jsonl.gz"
"""Name of the file in the folder of a run that lists its images, a line each: split, class and name."""


class DataFingerprint:
    """Tells whether classes and images are those that a run was begun with.

    Images are compared by split, class and name, boxes by their numbers, masks by the sizes of their files. Sizes and
    contents of images are not looked at: that would take a look at each of them.

    Args:
        classes: Names of the classes, in the order of the network's outputs.
        sizes: The number of images in each split.
        splits: For each split a function that gives the names of its images and the indices of their classes; None for
            something that holds images of several. Of images that are made or have no names, it gives nothing.
        augment: Name of the callable that augments the images, if there is one.
        prepared: How images are made and prepared, by the names of the settings.
    """

    def __init__(
        self,
        classes: Sequence[str],
        sizes: Mapping[str, int],
        splits: Mapping[str, Callable[[], Iterable[tuple[str, int | None]]]],
        *,
        augment: str = "",
        prepared: Mapping[str, Any] | None = None,
    ) -> None:
        self.augment = augment
        self.prepared = json.loads(json.dumps(prepared or {}))
        self.classes = list(classes)
        self.sizes = dict(sizes)
        self._splits = splits
        digest = hashlib.sha256()
        for line in self._lines():
            digest.update(line)
        self.sha256 = digest.hexdigest()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds of it: little, however many images there are."""
        augment = {"augment": self.augment} if self.augment else {}
        prepared = {"prepared": self.prepared} if self.prepared else {}
        return {"classes": self.classes, "images": self.sizes, "sha256": self.sha256, **augment, **prepared}

    def write(self, folder: Path) -> None:
        """List the images in ``folder``, if they have names, so that a later difference can be named."""
        if lines := b"".join(self._lines()):
            write_bytes(folder / IMAGES, gzip.compress(lines, compresslevel=1, mtime=0))

    def check(self, saved: Any, folder: Path) -> None:
        """Make sure that nothing has changed.

        Args:
            saved: `state` as it was when the run was begun; None where that was not kept.
            folder: Where `write` listed the images then.

        Raises:
            ValueError: Classes or images are others; the message says which.
        """
        if saved is None:
            return
        known = saved.get("prepared", {})  # nothing in runs of older versions
        others = [name for name in known if name in self.prepared and known[name] != self.prepared[name]]
        if not others and {**saved, "prepared": {}} == {**self.state(), "prepared": {}}:
            return
        then = _read(folder / IMAGES)
        now = {tuple(json.loads(line)) for line in self._lines()}
        changes = _changed_classes(saved["classes"], self.classes, then, now)
        changes += [
            f"{split}: {saved['images'].get(split, 0)} images then, {size} now"
            for split, size in self.sizes.items()
            if saved["images"].get(split, 0) != size
        ]
        changes += [] if then is None else _changed_images(then, now)
        if saved.get("augment", "") != self.augment:
            changes.append(f"augment: {saved.get('augment') or 'none'} then, {self.augment or 'none'} now")
        changes += [f"{name}: {known[name]} then, {self.prepared[name]} now" for name in others]
        raise ValueError(
            f"the run in {folder} was begun on other data:\n  "
            + "\n  ".join(changes or ["images were renamed or replaced by others"])
            + "\nput back what it was begun on, or train anew with another `out`"
        )

    def _lines(self) -> Iterator[bytes]:
        for split, entries in self._splits.items():
            for name, label in entries():
                yield f"{json.dumps([split, None if label is None else self.classes[label], name])}\n".encode()


Entry = tuple[str, str | None, str]


def _read(path: Path) -> set[Entry] | None:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return {(split, name, image) for split, name, image in map(json.loads, file)}
    except (OSError, EOFError, ValueError, TypeError):
        return None


def _changed_classes(
    then: Sequence[str], now: Sequence[str], images_then: set[Entry] | None, images_now: set[Any]
) -> list[str]:
    """Return a sentence for each class that is another; one whose images are all there under a new name is renamed."""
    kept = set(then) & set(now)
    removed, added = [name for name in then if name not in kept], [name for name in now if name not in kept]
    changes = []
    if images_then is not None and removed and added:
        names_then, names_now = _by_class(images_then), _by_class(images_now)
        called = defaultdict(list)  # by the names of the images, which classes may share
        for new in reversed(added):
            called[frozenset(names_now[new])].append(new)
        renamed = {old: same.pop() for old in removed if (same := called[frozenset(names_then[old])])}
        changes = [f"the class {old!r} is called {new!r} now" for old, new in renamed.items()]
        removed = [name for name in removed if name not in renamed]
        added = [name for name in added if name not in renamed.values()]
    changes += [f"the class {name!r} was removed" for name in removed]
    changes += [f"the class {name!r} was added" for name in added]
    if not changes and list(then) != list(now):
        changes.append(f"the classes are in another order: {', '.join(now)}, then {', '.join(then)}")
    return changes


def _by_class(images: set[Entry]) -> dict[str | None, set[tuple[str, str]]]:
    found: dict[str | None, set[tuple[str, str]]] = defaultdict(set)
    for split, label, image in images:
        found[label].add((split, image.rpartition("/")[2]))
    return found


def _changed_images(then: set[Entry], now: set[Any], shown: int = 5) -> list[str]:
    """Return a sentence for each split of which images were removed, and of which images were added."""
    changes = []
    for what, entries in (("removed", then - now), ("added", now - then)):
        for split in sorted({split for split, _, _ in entries}):
            names = sorted(name for where, _, name in entries if where == split)
            examples = ", ".join(names[:shown]) + ", …" * (len(names) > shown)
            changes.append(f"{split}: {len(names)} {what} ({examples})")
    return changes
