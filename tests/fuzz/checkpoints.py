"""Checkpoints and model cards that were damaged or forged: refused by name, never loaded in part, never run."""

from __future__ import annotations

import copy
import json
import random
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from foveate.io.checkpoint import META_KEY, NetworkMeta, load_network, load_weights, meta_to_json, save_with_card
from foveate.models.building import build_network
from tests.fuzz.gadgets import gadgets, with_gadget
from tests.fuzz.outcome import Outcome, progress

MODEL, CLASSES, SIZE = "gsa_resnet_tiny", 3, (32, 32)
FORMS = ("safetensors with card", "safetensors", "ckpt", "card")


class Original:
    """A network, and what is stored of it."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.model, kwargs = build_network(MODEL, num_classes=CLASSES, img_size=SIZE)
        self.meta = NetworkMeta(
            model=MODEL,
            kwargs=kwargs,
            classes=[f"class {i}" for i in range(CLASSES)],
            img_size=SIZE,
            mean=(0.5, 0.5, 0.5),
            std=(0.2, 0.2, 0.2),
            crop_pct=1.0,
            interpolation="bilinear",
        )
        self.tensors = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        save_with_card(folder / "whole.safetensors", self.model, self.meta)
        self.weights = (folder / "whole.safetensors").read_bytes()
        self.card = (folder / "whole.json").read_text()

    def other(self) -> nn.Module:
        """Return a network of the same kind with other weights."""
        model = copy.deepcopy(self.model)
        for tensor in model.state_dict().values():
            tensor.zero_()
        return model


def run(trials: int, seed: int) -> Outcome:
    """Load ``trials`` mutated checkpoints and cards, and each of the `gadgets` in three kinds of file."""
    outcome = Outcome(trials=trials, counts={"executions": 0, "partial loads": 0, "refused": 0})
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name)
        original = Original(folder)
        for index in progress(range(trials), "checkpoints"):
            rng = random.Random(f"{seed}-{index}")
            form = FORMS[index % len(FORMS)]
            path, what, key = _mutated(form, rng, original, folder / f"{index}")
            if fault := _loaded(path, key, original, outcome):
                outcome.failures.append(f"{index}: {form}, {what}: {fault}")
        _gadgets(folder / "gadgets", original, outcome)
        outcome.trials += outcome.counts["pickle gadgets"]
    return outcome


def _mutated(form: str, rng: random.Random, original: Original, folder: Path) -> tuple[Path, str, str | None]:
    """Write a mutated checkpoint; return its path, what was done to it, and the key that a message must name."""
    folder.mkdir()
    path = folder / ("last.ckpt" if form == "ckpt" else "weights.safetensors")
    if form == "card":
        path.write_bytes(original.weights)
        content, what, key = _mutated_json(rng, original.card)
        (folder / "weights.json").write_text(content)
        return path, what, key
    if form == "safetensors with card":
        (folder / "weights.json").write_text(original.card)
    what, key = "bytes", None
    if form == "ckpt" and rng.random() < 0.1:
        content = rng.choice(
            [[1], None, {"state_dict": [1]}, {"state_dict": {}}, {"state_dict": {3: torch.zeros(1)}}, {}]
        )
        torch.save(content, path)
        return path, f"{content}", key
    if rng.random() < 0.4:
        _store(path, original.tensors, meta_to_json(original.meta))
        path.write_bytes(_mutated_bytes(rng, path.read_bytes()))
        return path, what, key
    tensors, meta = dict(original.tensors), meta_to_json(original.meta)
    if rng.random() < 0.4:
        meta, what, key = _mutated_json(rng, meta)
    else:
        what, key = _mutated_tensors(rng, tensors, safe=path.suffix == ".safetensors")
    _store(path, tensors, meta)
    return path, what, None if form == "safetensors with card" else key  # there, the hash comes first


def _store(path: Path, tensors: dict[str, Any], meta: str) -> None:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(tensors, path, metadata={META_KEY: meta})
    else:
        torch.save({"state_dict": {f"model.{key}": value for key, value in tensors.items()}, META_KEY: meta}, path)


def _mutated_bytes(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    end = rng.choice([64, 2000, len(changed)])
    place = rng.randrange(end)
    how = rng.choice(["cut", "removed", "inserted", "changed"])
    if how == "cut":
        del changed[rng.randrange(len(changed)) :]
    elif how == "removed":
        del changed[place : place + rng.randint(1, 50)]
    elif how == "inserted":
        changed[place:place] = rng.randbytes(rng.randint(1, 50))
    else:
        for _ in range(rng.randint(1, 8)):
            changed[rng.randrange(end)] = rng.randrange(256)
    return bytes(changed)


def _mutated_tensors(rng: random.Random, tensors: dict[str, Any], *, safe: bool) -> tuple[str, str | None]:
    """Change a tensor in ``tensors``; return what was done and its key."""
    key = rng.choice(list(tensors))
    tensor = tensors[key]
    changes: dict[str, Callable[[], Any]] = {
        "longer": lambda: torch.zeros((*tensor.shape, 2)),
        "empty": lambda: torch.zeros(0),
        "of another size": lambda: torch.zeros([side + 1 for side in tensor.shape] or [1]),
        "complex": lambda: torch.ones(tensor.shape, dtype=torch.complex64) * 1j,
        **({} if safe else {"a list": lambda: [1, 2], "nothing": lambda: None, "text": lambda: "weights"}),
        **({} if safe else {"sparse": lambda: torch.ones(tensor.shape).to_sparse() if tensor.ndim else None}),
        **({} if safe else {"on no device": lambda: torch.zeros(tensor.shape, device="meta")}),
    }
    what = rng.choice([*changes, "left out", "renamed", "another beside it"])
    if what in changes:
        tensors[key] = changes[what]()
    elif what == "another beside it":
        tensors["beside.weight"] = torch.zeros(3)
        return what, "beside.weight"
    else:
        del tensors[key]
        if what == "renamed":
            tensors[key.upper()] = tensor
    return f"{key} {what}", key


def _mutated_json(rng: random.Random, text: str) -> tuple[str, str, str | None]:
    """Change the JSON of a model; return it, what was done, and the key that a message must name."""
    content = json.loads(text)
    if rng.random() < 0.2:
        cut = rng.choice(
            [text[: rng.randrange(len(text))], "", "null", "[]", "3", "[" * 100_000, text + "}", "\x00" * 9]
        )
        return cut, "not JSON of a model", None
    inner = content.get("network", content)
    forged = {
        "model": ["no_such_network", "hf-hub:some/one", "local-dir:/tmp", "../../x", "", None, 7, ["a"], "resnet18"],
        "kwargs": [
            None,
            [],
            {"num_classes": -1},
            {"num_classes": 10**15},
            {"num_classes": "many"},
            {"no_such_keyword": 1},
            {"checkpoint_path": "evil.pth"},
            {"pretrained": True},
            {"pretrained_cfg": {"url": "http://127.0.0.1:9/x.pth"}},
            {"pretrained_cfg_overlay": {"file": "evil.pth"}},
            {"act_layer": "os.system"},
            {"block": "subprocess.Popen"},
            {"stem": {"class_path": "os.system"}},
            {"img_size": [0, -3]},
            {"drop_rate": "__import__('os')"},
        ],
        "classes": [None, 3, [], [1, 2], {"a": 1}],
        "img_size": [None, [32], [0, 0], "32", [1e9, 2], [-1, 3]],
        "mean": [None, [], "x", [float("nan")] * 3],
        "std": [None, [0, 0, 0], [-1, 1, 1]],
        "crop_pct": [None, 0, "1", 7, float("inf")],
        "interpolation": [None, 5, ""],
    }
    if content is not inner:
        own = {
            "sha256": ["0" * 64, "", None, 5],
            "format": [0, 2, None, "1"],
            "parameters": [-1, 0, "many", None],
            "dtype": ["int8", 5],
        }
        if rng.random() < 0.4:
            key = rng.choice(list(own))
            content[key] = rng.choice(own[key])
            return json.dumps(content), f"{key}={content[key]!r}", key
    key = rng.choice(list(forged))
    how = rng.choice(["forged", "forged", "left out", "another beside it"])
    if how == "left out":
        del inner[key]
    elif how == "another beside it":
        key = "beside"
        inner[key] = 1
    else:
        inner[key] = rng.choice(forged[key])
        named = None if key == "kwargs" else key  # of those, a message names the keyword, or the weights that differ
        return json.dumps(content), f"{key}={str(inner[key])[:60]}", named
    return json.dumps(content), f"{key} {how}", key


def _loaded(path: Path, key: str | None, original: Original, outcome: Outcome) -> str:
    """Load a file both ways; return what is wrong about what happens."""
    model = original.other()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    said = []
    try:
        network, _ = load_network(path)
    except Exception as error:
        said.append(error)
    else:
        if not _same(network.state_dict(), _independently(path)):
            outcome.count("partial loads")
            return "load_network gave other weights than the file holds"
    try:
        load_weights(model, path)
    except Exception as error:
        said.append(error)
        if not _same(model.state_dict(), before):
            outcome.count("partial loads")
            return "load_weights raised, and left a network that was changed"
    else:
        if not _same(model.state_dict(), _independently(path)):
            outcome.count("partial loads")
            return "load_weights gave other weights than the file holds"
    if not said:
        outcome.count("loaded: the same weights, or others that a whole file might hold")
        return ""
    outcome.count("refused")
    for error in said:
        if not isinstance(error, ValueError):
            return f"raised {error!r}"
        names = (str(path), str(path.with_suffix(".json")))
        if not any(name in str(error) for name in names):
            return f"the message does not name the file: {error}"
    if key is not None and not any(key in str(error) for error in said):
        return f"no message names {key}: {said[0]}"
    return ""


def _independently(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    content = torch.load(path, weights_only=True)
    return {name.removeprefix("model."): tensor for name, tensor in content["state_dict"].items()}


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Tell whether two have the same tensors, bit by bit; of half precision, what that is in single."""
    if one.keys() != other.keys() or any(tensor.is_complex() for tensor in other.values()):
        return False
    pairs = [(one[name], other[name].to(one[name].dtype)) for name in one]
    return all(a.shape == b.shape and a.numpy().tobytes() == b.contiguous().numpy().tobytes() for a, b in pairs)


def _gadgets(folder: Path, original: Original, outcome: Outcome) -> None:
    folder.mkdir()
    mark = folder / "executed"
    outcome.counts["pickle gadgets"] = 0
    for index, gadget in enumerate(gadgets(str(mark))):
        inside = with_gadget(original.tensors, gadget)
        for ending, content in {".pkl": gadget.pickled(), ".ckpt": inside, ".safetensors": inside}.items():
            path = folder / f"{index}{ending}"
            path.write_bytes(content)
            outcome.count("pickle gadgets")
            outcome.counts["refused"] -= 1
            fault = _loaded(path, None, original, Outcome(trials=0))
            outcome.counts["refused"] += 1
            if mark.exists() or mark.with_suffix(".npy").exists():
                outcome.count("executions")
                outcome.failures.append(f"{gadget.function} in {ending} was executed")
                return
            if fault:
                outcome.failures.append(f"{gadget.function} in {ending}: {fault}")
