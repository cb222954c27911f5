from __future__ import annotations

import hashlib
from pathlib import Path

import lightning
import pytest
import torch
from tests.sweeps import in_turn

from foveate.data import make_loader, open_data


class Interrupted(Exception):  # noqa: N818
    pass


class InterruptAt(lightning.Callback):
    def __init__(self, step: int, checkpoint: Path) -> None:
        self.step = step
        self.checkpoint = checkpoint

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.checkpoint)
            raise Interrupted


class Recorder(lightning.LightningModule):
    """A linear classifier that notes which batches it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3 * 16 * 16, 10)
        self.seen: list[tuple[int, int, str]] = []

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
        images, labels = batch
        self.seen.append((self.current_epoch, index, hashlib.sha256(images.numpy().tobytes()).hexdigest()))
        return torch.nn.functional.cross_entropy(self.linear(images.flatten(1)), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(workers: int, *callbacks: lightning.Callback, checkpoint: Path | None = None) -> Recorder:
    data = open_data("digits", img_size=16, options={"length": 40, "clutter": 1})
    transform = data.transform.replace(hflip=0.5, random_erasing=0.5)
    loader = make_loader(data.train, transform=transform, batch_size=8, training=True, workers=workers)
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    torch.manual_seed(0)
    model = Recorder()
    try:
        trainer.fit(model, loader, ckpt_path=checkpoint)
    except Interrupted:
        assert callbacks
    return model


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("step", "workers"), in_turn([3, 5, 9], [2, 0]))
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(tmp_path: Path, workers: int, step: int):
    whole = fit(0)
    assert len(set(whole.seen)) == len(whole.seen) == 15
    first = fit(workers, InterruptAt(step, tmp_path / "a.ckpt"))
    second = fit(workers, checkpoint=tmp_path / "a.ckpt")
    assert first.seen + second.seen == whole.seen
    torch.testing.assert_close(second.linear.weight, whole.linear.weight, rtol=0, atol=0)
