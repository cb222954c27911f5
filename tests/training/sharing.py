"""One update by several processes and by one, and what four processes leave that two go on with.

The tests look at it all; `make fuzz` prints the figures.
"""

from __future__ import annotations

import dataclasses
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from tests.fuzz.outcome import Outcome
from tests.training.processes import PATIENCE, ended, note_samples, shared_run, together, train_together
from timm.layers import freeze_batch_norm_2d
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

import foveate  # noqa: F401  registers the networks
from foveate.data import make_loader, open_data
from foveate.data.decoding import BadImage, UnreadableImageError
from foveate.data.dense import VOID, open_segmentation
from foveate.data.dense.joint import Evaluation, Training
from foveate.models.dense import build_with_head
from foveate.tasks import Classification, Segmentation, Task
from foveate.training import Distributed, Recipe, TrainingModule, fit, predict, process_group
from foveate.training.sharding import gathered

CPU = torch.device("cpu")
NETWORKS = ("conv_resnet_tiny", "expatt_resnet_tiny", "gsa_resnet_tiny", "aa_resnet_tiny", "cram_resnet_tiny")
SIZES = (1, 2, 4)
BATCH = 24
SMALL = {"decoder_channels": [16, 8, 8]}
CASES = (*NETWORKS, "in parts", "accumulated", "damaged", "segmentation")
"""Updates of which the gradients are compared; in parts: FSDP."""
GRADIENTS = 1e-6
"""Relative L2 difference in float32."""


class Damaged:
    """Images of which some cannot be read."""

    def __init__(self, images: Any, damaged: set[int]) -> None:
        self.images, self.damaged = images, damaged

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        if index in self.damaged:
            raise UnreadableImageError(BadImage(str(index), "damaged"))
        return self.images[index]


def network(name: str, *, frozen: bool) -> nn.Module:
    """Return a network in which every parameter has a gradient: as they are built, blocks add nothing at first.

    Its activations are smooth: a ReLU that rounding switches changes the gradient by more than rounding.
    """
    torch.manual_seed(2)
    model = timm.create_model(name, num_classes=10)
    return smooth(model, frozen=frozen)


def smooth(model: nn.Module, *, frozen: bool = True) -> nn.Module:
    """Return ``model`` without zeros and without ReLUs, and with its running statistics frozen."""
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    for place in list(model.modules()):
        for name, child in place.named_children():
            if isinstance(child, nn.ReLU):
                setattr(place, name, nn.SiLU())
    return freeze_batch_norm_2d(model) if frozen else model


def one_update(
    distributed: Distributed,
    out: Path,
    model: nn.Module,
    *,
    damaged: set[int] = frozenset(),
    accumulate: int = 1,
    val: int = 23,
    masks: bool = False,
) -> dict[str, Any]:
    """Train for one update; return the gradients, the running statistics, the figures, and what is predicted."""
    options = {"clutter": 1, "length": accumulate * BATCH, "val_length": val}
    data = (open_segmentation if masks else open_data)("digits", img_size=16, options=options)
    transforms = (Training(data.transform), Evaluation(data.transform)) if masks else (data.transform, data.transform)
    shared: dict[str, Any] = {"batch_size": BATCH // distributed.size, "seed": 3}
    shared |= {"rank": distributed.rank, "world_size": distributed.size, "max_bad_images": len(damaged)}
    loaders = [
        make_loader(Damaged(part, damaged), training=part is data.train, transform=transform, **shared)
        for part, transform in zip((data.train, data.val), transforms, strict=True)
    ]
    recipe = Recipe(
        epochs=1, batch_size=BATCH, opt="sgd", lr=1e-6, sched="none", warmup_epochs=0, accumulate=accumulate
    )
    task: Task = Classification(data.classes, label_smoothing=recipe.label_smoothing)
    if masks:
        task = VoidSegmentation(data.classes, dice=0.5)
    module = TrainingModule(model, recipe, task, seed=distributed.seed(3))
    gradients: dict[str, Tensor] = {}

    def note(optimizer: Any, *_: Any) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients.update({str(number): gathered(p.grad).clone() for number, p in enumerate(parameters)})

    handle = register_optimizer_step_pre_hook(note)
    out.mkdir(exist_ok=True)
    rows = fit(module, *loaders, out=out, device=CPU, verbose=False, distributed=distributed)
    handle.remove()
    logits, labels = predict(module, loaders[1], device=CPU, distributed=distributed)
    buffers = {name: buffer.clone() for name, buffer in module.model.named_buffers()}
    names = ("mean_iou", "pixel_accuracy") if masks else ("top1", "top5")
    figures = {name: rows[0][name] for name in ("train_loss", "val_loss", *(f"val_{name}" for name in names))}
    return {"gradients": gradients, "buffers": buffers, "figures": figures, "logits": logits, "labels": labels}


def all_updates(folder: str, networks: tuple[str, ...]) -> None:
    """Be one process of several: do every update that the tests look at, and save what came out.

    In float32 the updates of ``networks``, in float64 those of all.
    """
    torch.set_num_threads(1)
    with process_group("auto", CPU) as distributed:
        out = Path(folder)
        results = {name: one_update(distributed, out / name, network(name, frozen=True)) for name in networks}
        for name in NETWORKS:
            results[f"{name} in float64"] = one_update(distributed, out / "64", Doubled(network(name, frozen=True)))
        parts = dataclasses.replace(distributed, sharded=distributed.size > 1)
        results["in parts"] = one_update(parts, out / "p", network("gsa_resnet_tiny", frozen=True), accumulate=2)
        results["accumulated"] = one_update(
            distributed, out / "a", network("conv_resnet_tiny", frozen=True), accumulate=3
        )
        results["damaged"] = one_update(
            distributed, out / "d", network("conv_resnet_tiny", frozen=True), damaged={1, 7, 8, 20}
        )
        results["segmentation"] = one_update(distributed, out / "masks", segmenter(), masks=True)
        results["few"] = one_update(distributed, out / "f", network("conv_resnet_tiny", frozen=True), val=3)
        results["statistics"] = one_update(distributed, out / "s", network("gsa_resnet_tiny", frozen=False))
        torch.save(results, out / f"{distributed.rank}.pt")


def segmenter() -> nn.Module:
    """Return a segmentation network in float64: its last bias has a small difference of large numbers for gradient."""
    torch.manual_seed(2)
    model, _ = build_with_head("gsa_resnet_tiny", "unet", num_classes=11, img_size=(16, 16), head_args=SMALL)
    return Doubled(smooth(model))


class VoidSegmentation(Segmentation):
    """Segmentation in which images have unequal numbers of pixels that are not void."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss without the pixels of an upper part, which depends on the mask itself."""
        masks = targets.clone()
        for mask in masks:
            mask[: int(mask.sum()) % 13] = VOID
        return super().loss(outputs, masks)


class Doubled(nn.Module):
    """A network in float64."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.double())


def difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Return the relative L2 difference of two gradients of the whole network."""
    assert a.keys() == b.keys()
    one, other = (torch.cat([x[name].flatten() for name in b]).double() for x in (a, b))
    return float((one - other).norm() / other.norm())


def updates_by(size: int, folder: Path, networks: tuple[str, ...] = NETWORKS) -> list[dict[str, Any]]:
    """Let so many processes do every update; return what came out in each of them."""
    folder.mkdir(parents=True, exist_ok=True)
    assert ended(together(size, all_updates, str(folder), networks), PATIENCE) == [0] * size
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


def four_then_two(folder: Path, before: str, after: str) -> tuple[list[int], str]:
    """Let four processes train, be told to end, and two go on; return what images were trained on, and the log.

    Per epoch, how often an image was lost, and how often repeated: ``[lost, repeated] * 2``.
    """
    run = shared_run(folder / "run", often=False)
    samples = folder / "samples"
    samples.mkdir()
    run.arguments += ["--epochs=2", f"--strategy={before}"]
    assert train_together(run, 4, note_samples, str(samples), 8 + 3, 2) == [128 + signal.SIGTERM] * 4
    text = run.text()
    run.arguments.append(f"--strategy={after}")
    assert train_together(run, 2, note_samples, str(samples)) == [0, 0], run.text()
    lines = [line for file in samples.iterdir() for line in file.read_text().splitlines()]
    seen = Counter(tuple(key) for line in lines for key in json.loads(line))
    wrong = []
    for epoch in range(2):
        order = np.random.default_rng([0, epoch]).permutation(200)[: 8 * 24]
        given = Counter({item: times for (of, item), times in seen.items() if of == epoch})
        wanted = Counter(order.tolist())
        wrong += [(wanted - given).total(), (given - wanted).total()]
    assert len(json.loads((run.out / "result.json").read_text())["correct"]) == 30
    return wrong, text


def sharing_trials(trials: int, seed: int, folder: Path) -> Outcome:
    """Compare gradients of 2 and 4 processes with those of one; let two processes go on from four.

    There is nothing random in it: ``trials`` says how many of the changes from four to two are made, at most two.
    """
    outcome = Outcome(trials=0)
    alone = updates_by(1, folder / "1")[0]
    for size in SIZES[1:]:
        several = updates_by(size, folder / str(size))
        for case in CASES:
            error = max(difference(one[case]["gradients"], alone[case]["gradients"]) for one in several)
            outcome.trials += 1
            outcome.count("gradients as of one process")
            outcome.check(error <= GRADIENTS, f"{case}, {size} processes: gradients differ by {error:.1e}")
            outcome.rows.append({"update of": case, "processes": size, "gradients differ by": f"{error:.1e}"})
    for before, after in (("ddp", "fsdp"), ("fsdp", "ddp"))[:trials]:
        (folder / before).mkdir()
        wrong, _ = four_then_two(folder / before, before, after)
        outcome.trials += 1
        outcome.count("4 processes gone on as 2, no image lost or repeated", not any(wrong))
        outcome.check(not any(wrong), f"{before} of 4, then {after} of 2: images lost and repeated: {wrong}")
    return outcome
