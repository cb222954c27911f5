"""Training against a plain loop, and interrupted training against uninterrupted."""

from __future__ import annotations

import copy
import csv
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.training.fitted import CPU, DATA, TEN_CLASSES, loaders, small_net, train
from timm import create_model
from timm.data import Mixup
from torch import Tensor, nn
from torch.nn import functional as F

from foveate.data import make_mixup
from foveate.io import NetworkMeta, load_network
from foveate.tasks import Classification, classification_result
from foveate.training import Recipe, TrainingModule, fit, predict


class Interrupting(nn.Module):
    """A network that is interrupted, as by Ctrl-C, when it is called in training for the n-th time."""

    def __init__(self, net: nn.Module, at: int, interruption: BaseException | None = None) -> None:
        super().__init__()
        self.net, self.at, self.interruption = net, at, interruption or KeyboardInterrupt()

    def forward(self, x: Tensor) -> Tensor:
        self.at -= self.training
        if self.at == 0:
            raise self.interruption
        return self.net(x)


def by_hand(model: nn.Module, recipe: Recipe) -> tuple[nn.Module, list[float]]:
    """SGD with momentum, warm-up and cosine, smoothing, clipping, accumulation and averaging, as in the textbooks."""
    loader, _ = loaders(recipe.batch_size)
    updates = math.ceil(len(loader) / recipe.accumulate)
    velocity = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    average, step, losses = copy.deepcopy(model), 0, []
    for epoch in range(recipe.epochs):
        loader.set_epoch(epoch)
        epoch_losses = []
        for index, (images, labels) in enumerate(loader):
            log_p = F.log_softmax(model(images), 1)
            target = F.one_hot(labels, 10) * (1 - recipe.label_smoothing) + recipe.label_smoothing / 10
            loss = -(target * log_p).sum(1).mean()
            epoch_losses.append(loss.item())
            (loss / recipe.accumulate).backward()
            if (index + 1) % recipe.accumulate and index + 1 < len(loader):
                continue
            gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
            norm = math.sqrt(sum(float((g**2).sum()) for g in gradients.values()))
            warm = recipe.warmup_epochs * updates
            if step < warm:
                lr = recipe.lr / 100 + step * (recipe.lr - recipe.lr / 100) / warm
            else:
                cosine = 0.5 * (1 + math.cos(math.pi * step / (updates * recipe.epochs)))
                lr = recipe.min_lr + (recipe.lr - recipe.min_lr) * cosine
            with torch.no_grad():
                for name, p in model.named_parameters():
                    g = gradients[name] * min(1, recipe.clip_grad / norm)
                    g = g + recipe.weight_decay * p if p.ndim > 1 else g
                    velocity[name] = recipe.momentum * velocity[name] + g if step else g
                    # timm's "sgd" is Nesterov's
                    p -= lr * (g + recipe.momentum * velocity[name])
                    p.grad = None
                decay = min(recipe.ema_decay, 1 - (1 + step) ** (-2 / 3))
                for a, p in zip(average.parameters(), model.parameters(), strict=True):
                    a.copy_(decay * a + (1 - decay) * p)
            step += 1
        losses.append(sum(epoch_losses) / len(epoch_losses))
    return average, losses


def test_training_is_the_plain_loop(tmp_path: Path) -> None:
    recipe = Recipe(
        epochs=3, batch_size=8, opt="sgd", lr=0.2, momentum=0.8, weight_decay=0.1, warmup_epochs=0.7, min_lr=0.01
    )
    recipe.label_smoothing, recipe.clip_grad, recipe.accumulate, recipe.ema_decay = 0.2, 0.5, 2, 0.6
    module, history = train(small_net(), recipe, tmp_path)
    expected, losses = by_hand(small_net(), recipe)
    assert [row["train_loss"] for row in history] == pytest.approx(losses, rel=1e-5)
    for ours, theirs in zip(module.network.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    logits, labels = predict(module, loaders()[1], device=CPU)
    assert history[-1]["val_top1"] == pytest.approx(classification_result(logits, labels).top1)
    assert history[-1]["val_loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)


def test_the_logs_hold_the_history(tmp_path: Path) -> None:
    _, history = train(small_net(), Recipe(epochs=2, batch_size=8), tmp_path)
    with (tmp_path / "logs" / "metrics.csv").open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert rows == history
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for name in set(history[0]) - {"epoch"}:
        assert [event.step for event in events.Scalars(name)] == [1, 2]
        assert [event.value for event in events.Scalars(name)] == pytest.approx([row[name] for row in history])


Uninterrupted = Callable[[Recipe, Mixup], tuple[TrainingModule, list[dict[str, Any]], Path]]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Uninterrupted:
    """What trains the network that nothing interrupts, once for each way to accumulate."""
    found: dict[int, Any] = {}

    def run(recipe: Recipe, mixing: Mixup) -> Any:
        if recipe.accumulate not in found:
            out = tmp_path_factory.mktemp("whole")
            found[recipe.accumulate] = (
                *train(Interrupting(small_net(dropout=0.5), at=-1), recipe, out, mixing=mixing),
                out,
            )
        return found[recipe.accumulate]

    return run


@pytest.mark.slow
@pytest.mark.parametrize("call", [3, 5 + 2, 10 + 5], ids=["first epoch", "second epoch", "last batch"])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("often", [0, 1], ids=["from the epoch", "from the update"])
def test_an_interrupted_run_goes_on_to_the_same_weights(
    call: int, often: int, accumulate: int, uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    recipe = Recipe(epochs=3, batch_size=8, ema_decay=0.9, warmup_epochs=0.5, accumulate=accumulate)
    mixing = make_mixup(10, mixup=0.3, cutmix=1.0, label_smoothing=0.1, seed=3)
    whole, history, reference = uninterrupted(recipe, mixing)

    handler = signal.getsignal(signal.SIGINT)
    cut = Interrupting(small_net(dropout=0.5), at=call)
    with pytest.raises(KeyboardInterrupt):
        train(cut, recipe, tmp_path / "cut", mixing=mixing, checkpoint_updates=often)
    saved = torch.load(tmp_path / "cut" / "last.ckpt", weights_only=True)["progress"]
    done = (call - 1) % 5 if often else 0
    assert (saved["epoch"], saved["batch"]) == ((call - 1) // 5, done - done % accumulate)
    assert signal.getsignal(signal.SIGINT) is handler

    start = Interrupting(small_net(dropout=0.5), at=-1)
    nn.init.zeros_(start.net[0].weight)  # what it starts from must not matter
    resumed, continued = train(start, recipe, tmp_path / "cut", resume=True, mixing=mixing)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert [row["epoch"] for row in continued] == [1, 2, 3]
    assert [{**row, "seconds": 0} for row in continued] == [{**row, "seconds": 0} for row in history]
    assert best_epoch(reference) == best_epoch(tmp_path / "cut")


def best_epoch(out: Path) -> int:
    return len(torch.load(out / "best.ckpt", weights_only=True)["history"])


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    recipe = Recipe(epochs=2, batch_size=8)
    module, history = train(small_net(), recipe, tmp_path)
    again, continued = train(small_net(), recipe, tmp_path, resume=True)
    assert continued == history
    assert all(map(torch.equal, module.state_dict().values(), again.state_dict().values()))


def test_a_loss_that_is_not_finite_stops_before_the_step(tmp_path: Path) -> None:
    class Exploding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.calls, self.seen = small_net(), 0, {}

        def forward(self, x: Tensor) -> Tensor:
            self.calls += self.training
            if self.calls == 8:
                self.seen = {name: value.clone() for name, value in self.net.state_dict().items()}
                return self.net(x) * math.inf
            return self.net(x)

    model = Exploding()
    with pytest.raises(
        ValueError, match=r"became (nan|inf) in epoch 2, batch 3, at learning rate .* Lower lr.* another `out`"
    ):
        train(model, Recipe(epochs=3, batch_size=8), tmp_path)
    assert all(torch.equal(value, model.seen[name]) for name, value in model.net.state_dict().items())
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert last["progress"]["epoch"] == 1
    assert all(value.isfinite().all() for value in last["state_dict"].values())


def test_checkpoints_load_as_the_averaged_network(tmp_path: Path) -> None:
    kwargs = {"num_classes": 10, "in_chans": 3}
    network = create_model("test_resnet", **kwargs)
    meta = NetworkMeta(
        model="test_resnet", kwargs=kwargs, classes=DATA.classes, img_size=(16, 16), mean=DATA.mean, std=DATA.std,
        crop_pct=1.0, interpolation="bilinear",
    )  # fmt: skip
    module = TrainingModule(
        network, Recipe(epochs=2, batch_size=8, ema_decay=0.9), Classification(TEN_CLASSES), meta=meta
    )
    fit(module, *loaders(), out=tmp_path, device=CPU, verbose=False)
    loaded, read = load_network(tmp_path / "last.ckpt")
    assert read == NetworkMeta(**{**vars(meta), "classes": list(DATA.classes), "img_size": [16, 16],
                                  "mean": list(DATA.mean), "std": list(DATA.std)})  # fmt: skip
    for name, value in module.network.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    assert not torch.equal(loaded.state_dict()["fc.weight"], module.model.state_dict()["fc.weight"])


def test_best_is_the_epoch_with_the_highest_accuracy(tmp_path: Path) -> None:
    _, history = train(small_net(), Recipe(epochs=5, batch_size=8, lr=0.02, warmup_epochs=0), tmp_path)
    accuracies = [row["val_top1"] for row in history]
    best = accuracies.index(max(accuracies)) + 1
    assert best_epoch(tmp_path) == best
    assert best < 5  # else the test shows nothing


def test_mixed_precision_and_channels_last_keep_weights_in_32_bits(tmp_path: Path) -> None:
    seen: list[tuple[torch.dtype, bool]] = []
    model = small_net()
    model[0].register_forward_hook(
        lambda _, inputs, output: seen.append(
            (output.dtype, inputs[0].is_contiguous(memory_format=torch.channels_last))
        )
    )
    recipe = Recipe(epochs=1, batch_size=8, precision="bf16-mixed", channels_last=True)
    module, history = train(model, recipe, tmp_path)
    assert set(seen) == {(torch.bfloat16, True)}
    assert {p.dtype for p in module.model.parameters()} == {torch.float32}
    assert math.isfinite(history[0]["val_loss"])
