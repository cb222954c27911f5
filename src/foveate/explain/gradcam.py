"""Grad-CAM, for comparison of networks without attention with those that have it.

    L_c(p) = Σ_k α_k A_k(p),     α_k = mean over positions of ∂ logit_c / ∂ A_k

with ``A_k`` the channels of a feature map: where the features stand that speak for class ``c``. Computed by the package
pytorch-grad-cam (``pip install grad-cam``).

Source: Selvaraju et al., *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization* (ICCV 2017,
arXiv 1610.02391).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foveate import _checks
from foveate._extras import require
from foveate.explain.maps import logits_of
from foveate.explain.records import GRADCAM, AttentionRecord, shares
from foveate.models.insertion import channels_come_last
from foveate.models.inspection import feature_stages

__all__ = ["grad_cam"]

TITLE = "Without attention: Grad-CAM"
DESCRIPTION = (
    "This network has no attention to show. Grad-CAM computes afterwards which places spoke for the class that it "
    "predicts."
)


def grad_cam(
    model: nn.Module,
    images: Tensor,
    *,
    names: Sequence[str] | None = None,
    targets: Sequence[int] | Tensor | None = None,
) -> tuple[Tensor, list[AttentionRecord]]:
    """Return the logits of ``model`` and a Grad-CAM record for each layer, each by one pass forward and back.

    The map of a record is ``max(L_c, 0)`` as a share of its sum, in units of the uniform share ``1/N``: the package's
    own maps are stretched to [0, 1] image by image, which makes a flat one look confident. A map without positive
    evidence is 1 everywhere. Arguments are those of `foveate.explain`, but ``model`` must be a private copy in
    evaluation mode, see `foveate.explain.untouched`.

    Raises:
        ValueError: There is no such module, its output is not one feature map that the logits depend on, or there
            are not as many classes as images.
        MissingExtraError: The package is not installed.
    """
    modules = dict(model.named_modules())
    if names is None:
        names = [name for name in feature_stages(model)[-1:] if name in modules]
        if not names:
            raise ValueError(
                f"{type(model).__name__} has no feature_info that names its last stage; name a module for Grad-CAM "
                "with names=…, one that puts out a feature map (B, C, H, W)"
            )
    if not names:
        raise ValueError("names must name a module for Grad-CAM to look at; got none. Leave it out for the last stage")
    for name in names:
        _checks.one_of("a name in names", name, modules)
    targets = targets.reshape(-1).tolist() if isinstance(targets, Tensor) else targets
    for target in [] if targets is None else targets:
        _checks.integer("a class in targets", target, minimum=0)
    if targets is not None and len(targets) != len(images):
        raise ValueError(f"targets must name one class for each of the {len(images)} images; got {len(targets)}")
    found = [_look(model, images, name, modules[name], targets) for name in names]
    return found[0][0], [record for _, record in found]


def _look(
    model: nn.Module, images: Tensor, name: str, layer: nn.Module, targets: Sequence[int] | None
) -> tuple[Tensor, AttentionRecord]:
    """Return the logits and the record of one layer."""
    channels_first = getattr(model, "output_fmt", "NCHW") == "NCHW"

    def keep(output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4 or not channels_first:
            got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise ValueError(
                f"{name!r} puts out {got}, where Grad-CAM needs a feature map (B, C, H, W): it explains convolutional "
                "networks; name another module with names=…"
            )
        return output.clone()  # a layer that follows may work in place

    # The network is in evaluation mode already, and the `train()` of some modules merges weights into others.
    model.eval = lambda: model  # type: ignore[method-assign]
    # Its components: as a whole it would stretch the maps, and clear the gradients of the network.
    cam = require("pytorch_grad_cam", extra="explain").GradCAM(model, [layer], reshape_transform=keep)
    kept = cam.activations_and_grads
    try:
        with torch.inference_mode(False), torch.enable_grad():
            x = images.detach().clone().requires_grad_()  # gradients are followed from here
            logits = logits_of(kept(x), images)
            if logits is None:
                raise ValueError(
                    f"{type(model).__name__} puts out no (B, classes) for {len(images)} images; Grad-CAM explains "
                    "classifiers"
                )
            classes = tuple(logits.argmax(1).tolist() if targets is None else targets)
            if max(classes) >= logits.shape[1]:
                raise ValueError(
                    f"a class in targets must be below {logits.shape[1]}, the number of classes; got {max(classes)}"
                )
            if len(kept.activations) != 1:
                calls = len(kept.activations)
                raise ValueError(f"{name!r} is called {calls} times in a pass; Grad-CAM needs a layer called once")
            # Not `backward`: parameters of a subclass are the original's own, and keep their gradients.
            torch.autograd.grad(logits[range(len(classes)), classes].sum(), x, allow_unused=True)
        if len(kept.gradients) != 1:
            raise ValueError(f"the logits do not depend on what {name!r} puts out; name another module with names=…")
        (activations,), (gradients,) = kept.activations, kept.gradients
        evidence = cam.get_cam_image(x, layer, None, activations.float().numpy(), gradients.float().numpy())
    finally:
        kept.release()
        del model.eval
    channels, height, width = images.shape[1:]
    if channels_come_last(model, name, [activations], (channels, height, width)):
        raise ValueError(
            f"{name!r} puts out shape {tuple(activations.shape)}, its channels last, where Grad-CAM needs a feature "
            "map (B, C, H, W); name another module with names=…"
        )
    if not np.isfinite(evidence).all():
        raise ValueError(
            f"Grad-CAM of {name!r} is not finite: the network puts out or passes on infinite values or NaN"
        )
    values = shares(torch.from_numpy(evidence).clamp(min=0))
    return logits.detach(), AttentionRecord(
        name, "GradCAM", values, GRADCAM, (height, width), title=TITLE, description=DESCRIPTION, target=classes
    )
