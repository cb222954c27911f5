"""`foveate.explain`: what a network predicts for images, and where it looked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from foveate import _checks
from foveate._shapes import Float
from foveate.explain.gradcam import grad_cam
from foveate.explain.maps import check_input, logits_of, observe
from foveate.explain.records import AttentionRecord
from foveate.explain.untouched import untouched
from foveate.models.inspection import attention_modules

__all__ = ["METHODS", "Explanation", "Guess", "explain"]

METHODS = ("auto", "attention", "gradcam")


class Guess(NamedTuple):
    """A class and its probability according to the network.

    Examples:
        >>> foveate.explain.Guess(label=3, probability=0.75)
        Guess(label=3, probability=0.75)
    """

    label: int
    probability: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """Prediction of a network for a batch of images, and what its attention modules attended to.

    Examples:
        >>> network = timm.create_model("cram_resnet_tiny", num_classes=10)
        >>> explanation = foveate.explain(network, torch.randn(2, 3, 32, 32))
        >>> explanation.probabilities.shape, [len(guesses) for guesses in explanation.top(3)]
        (torch.Size([2, 10]), [3, 3])
    """

    logits: Tensor | None
    """``(B, classes)``, on the CPU; None if the network is no classifier."""
    probabilities: Tensor | None
    """``(B, classes)``: their softmax, in at least float32."""
    records: tuple[AttentionRecord, ...]
    """One per attention module, in the order in which they ran; or those of Grad-CAM."""
    output: Any = None
    """Output of the network, of any kind: a map of classes, boxes, features."""

    def top(self, k: int = 5) -> list[list[Guess]]:
        """Return the ``k`` most probable classes of each image (all if there are fewer), the most probable first."""
        if self.probabilities is None:
            raise ValueError("the network is no classifier: it has no probabilities of classes; see `output`")
        k = min(_checks.integer("k", k), self.probabilities.shape[1])
        values, labels = self.probabilities.topk(k)
        return [
            [Guess(*guess) for guess in zip(*image, strict=True)]
            for image in zip(labels.tolist(), values.tolist(), strict=True)
        ]

    def __getitem__(self, name: str) -> AttentionRecord:
        """Return the record of the module called ``name``, or raise a `KeyError` that lists the names."""
        for record in self.records:
            if record.name == name:
                return record
        names = [record.name for record in self.records]
        raise KeyError(f"no record of {name!r}{_checks.suggestion(name, names)}; there are {', '.join(names)}")


def explain(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    *,
    query: tuple[int, int] | None = None,
    names: Sequence[str] | None = None,
    method: str = "auto",
    targets: Sequence[int] | None = None,
) -> Explanation:
    """Return what ``model`` predicts for ``images``, and where each of its attention modules looked.

    ``foveate.explain(model, images)`` is this function. One pass in evaluation mode gives both: the weights are those
    that made the prediction. A private copy that shares the weights of ``model`` runs it: modes, hooks, gradients and
    buffers of ``model`` are not touched, it may be compiled, and several threads may explain one model at a time.

    Args:
        model: Any network; its attention modules are found wherever they are, those of `foveate.insert` included.
            A classifier without any is explained by Grad-CAM. Of a network that is no classifier (segmentation,
            detection, features) there are the records and its output, and no probabilities.
        images: Images as the network takes them (normalized), on its device.
        query: ``(row, column)`` of an image pixel: of N×N maps, show what the position that covers it attends to. The
            weights of every other pixel remain available, see `AttentionRecord.attention_from`. Gates do not change.
        names: Modules to explain; all attention modules by default. For Grad-CAM the modules whose output is used;
            the last stage of ``model.feature_info`` by default.
        method: ``attention``, ``gradcam``, or ``auto``: attention if there is any, else Grad-CAM.
        targets: For Grad-CAM: class of each image whose evidence is shown; the predicted one by default.

    Raises:
        ValueError: An argument is wrong, see also `attention_records`; for Grad-CAM, the network is no classifier.
        MissingExtraError: Grad-CAM is to be used and not installed.

    Examples:
        >>> network = timm.create_model("cram_resnet_tiny")
        >>> (record,) = foveate.explain(network, torch.randn(1, 3, 32, 32)).records
        >>> record.name, record.map.shape
        ('layer3.attention', torch.Size([1, 8, 8]))
    """
    check_input(model, images)
    _checks.one_of("method", method, METHODS)
    by_attention = bool(attention_modules(model)) if method == "auto" else method == "attention"
    if method == "attention" and not attention_modules(model):
        raise ValueError(f"{type(model).__name__} has no attention module; use method='gradcam', or foveate.insert one")
    if by_attention and targets is not None:
        raise ValueError("targets choose the class that Grad-CAM explains; attention has no class: leave them out")
    if not by_attention and query is not None:
        raise ValueError("query asks for the attention of one pixel, and Grad-CAM has none: leave it out")
    with untouched(model, images) as twin:
        if by_attention:
            output, records = observe(twin, images, query=query, names=names)
            logits = logits_of(output, images)
        else:
            logits, records = grad_cam(twin, images, names=names, targets=targets)
            output = logits
    if logits is None:
        return Explanation(None, None, tuple(records), output)
    logits = logits.detach().cpu()
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return Explanation(logits, wide.softmax(1), tuple(records), output)
