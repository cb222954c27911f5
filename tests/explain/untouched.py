"""Everything about a network that looking into it could change."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs",
)


def lived_in(model: nn.Module) -> nn.Module:
    """Give ``model`` all that a network in use has: mixed modes, frozen parameters, gradients, and hooks."""
    generator = torch.Generator().manual_seed(7)
    for number, module in enumerate(model.modules()):
        module.training = number % 3 != 0
        if number % 5 == 0:
            module.register_forward_hook(lambda *_: None)
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 4 != 0)
        if number % 2 == 0:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
    return model


class Snapshot:
    """The state of a network, to be compared with what it is later."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.state = self._state()
        self.tensors = {name: tensor.clone() for name, tensor in self._tensors()}
        self.generator = torch.get_rng_state()

    def _tensors(self) -> list[tuple[str, torch.Tensor]]:
        named = [*self.model.named_parameters(), *self.model.named_buffers()]
        named += [(f"{name}.grad", p.grad) for name, p in self.model.named_parameters() if p.grad is not None]
        return named

    def _state(self) -> dict[str, Any]:
        return {
            "modes": [module.training for module in self.model.modules()],
            "hooks": [{name: list(getattr(m, name)) for name in HOOKS} for m in self.model.modules()],
            "requires_grad": [parameter.requires_grad for parameter in self.model.parameters()],
            "objects": [id(tensor) for _, tensor in self._tensors()],
            "attributes": [sorted(vars(module)) for module in self.model.modules()],
            "enabled": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        }

    def assert_unchanged(self) -> None:
        now = self._state()
        for key, before in self.state.items():
            assert now[key] == before, key
        for name, tensor in self._tensors():
            assert torch.equal(tensor, self.tensors[name]), name
        assert torch.equal(torch.get_rng_state(), self.generator)
