"""What a computation would need, told before it runs: memory from its shapes alone, time from a smaller one."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from foveate.models.inspection import evaluating
from studies.bench.workload import autocast

__all__ = ["forecast_memory"]


def forecast_memory(module: nn.Module, x: Tensor, *, mode: str, dtype: torch.dtype) -> int:
    """Return the peak of the bytes that a pass over ``x`` would add to what is allocated, without making it.

    The pass runs on tensors without storage, and what each operation would return is added up for as long as it is
    referred to. What operations allocate for themselves is not seen: the truth lies up to about twice as high.

    Args:
        module: What would run; it is left as it is.
        x: The input; only its shape, strides and dtype count.
        mode: ``forward``, or ``step`` for the backward pass as well.
        dtype: float32, or what autocast would compute in.
    """
    fake = FakeTensorMode()
    step = mode == "step"

    def shadow(tensors: Iterable[tuple[str, Tensor]], gradients: bool) -> dict[str, Tensor]:
        return {name: fake.from_tensor(t.detach()).requires_grad_(gradients) for name, t in tensors}

    state = shadow(module.named_parameters(), step) | shadow(module.named_buffers(), False)
    image = fake.from_tensor(x.detach()).requires_grad_(step)
    with evaluating(module), fake, torch.set_grad_enabled(step), _Allocations() as allocations:
        with autocast(x, dtype):
            output = functional_call(module, state, (image,))
        if step:
            output.backward(torch.empty_like(output))
    return allocations.peak


class _Allocations(TorchDispatchMode):
    """Adds up the storages that operations return, and takes them off when they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: Any = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage() not in self.seen:
                storage = tensor.untyped_storage()
                self.seen[storage] = True
                self.now += storage.nbytes()
                weakref.finalize(storage, self._release, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _release(self, size: int) -> None:
        self.now -= size
