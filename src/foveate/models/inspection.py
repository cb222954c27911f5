"""Inspection of networks: finding their attention, running a copy, leaving the original untouched."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from foveate.nn import SpatialAttention

__all__ = [
    "FAILURES",
    "RefusedError",
    "attention_modules",
    "dry_run",
    "eager",
    "evaluating",
    "feature_stages",
    "floating_dtype",
    "gates",
    "is_channels_last",
    "meta_copy",
    "private_copy",
    "unshared",
    "without_decay",
]

Result = TypeVar("Result")

FAILURES = (AssertionError, AttributeError, LookupError, RuntimeError, TypeError)
"""Errors that networks raise for keywords and images that they do not take, besides `ValueError`."""


class RefusedError(ValueError):
    """What was asked of a network is refused, though it takes the image of a `dry_run`."""


def without_decay(model: nn.Module) -> set[str]:
    """Name the parameters that the networks and the modules inside of ``model`` exclude from weight decay."""
    return {
        f"{name}.{own}"
        for name, module in model.named_modules()
        if name and callable(getattr(module, "no_weight_decay", None))
        for own in module.no_weight_decay()
    }


def attention_modules(network: nn.Module) -> dict[str, SpatialAttention]:
    """Return the attention modules of ``network`` by name, in order.

    Of a network that is compiled or wrapped for several devices, those of the network inside, by their names there.
    """
    return {name: module for name, module in eager(network).named_modules() if isinstance(module, SpatialAttention)}


def gates(network: nn.Module) -> dict[str, SpatialAttention]:
    """Return the attention modules of ``network`` that weigh positions, rather than pairs of them."""
    return {name: module for name, module in attention_modules(network).items() if module.is_gate}


def eager(network: nn.Module) -> nn.Module:
    """Return the network inside what `torch.compile` and PyTorch's wrappers for several devices put around it."""
    while True:
        if isinstance(network, torch._dynamo.OptimizedModule):
            network = network._orig_mod
        elif isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
            network = network.module
        else:
            return network


def private_copy(network: nn.Module) -> nn.Module:
    """Copy the modules of ``network`` but share its weights: nobody else sees what is done with the copy.

    The copy runs eagerly even where ``network`` is compiled, and has hooks, modes, buffers, gradients and
    ``requires_grad`` of its own; its parameters are other tensors with the same memory.
    """
    network = eager(network)
    memo: dict[int, Any] = {}
    with torch.inference_mode(False):
        for module in network.modules():
            for parameter in module._parameters.values():
                if parameter is not None:
                    memo.setdefault(id(parameter), _alias(parameter))
            for buffer in module._buffers.values():
                if buffer is not None:
                    memo.setdefault(id(buffer), buffer.detach().clone())
        for module in network.modules():  # after all: parameters may stand in lists too
            for tensor in _other_tensors(module):
                memo.setdefault(id(tensor), tensor.detach().clone())
        twin = copy.deepcopy(network, memo)
    _whole_passes(twin)
    for module in twin.modules():
        module._compiled_call_impl = None
        for name, child in module.named_children():
            if child is not eager(child):
                setattr(module, name, eager(child))
    return twin


def _other_tensors(module: nn.Module) -> Iterator[Tensor]:
    """Yield tensors that a module keeps beside parameters and buffers, as parametrizations and caches do.

    Those that have a history refuse to be copied.
    """
    for name, value in vars(module).items():
        if name in ("_parameters", "_buffers", "_modules"):
            continue
        held = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
        yield from (one for one in held if isinstance(one, Tensor))


def _whole_passes(twin: nn.Module) -> None:
    """Have every module called: with checkpoints for the gradients timm calls the blocks of a stage without it."""
    for module in twin.modules():
        if getattr(module, "grad_checkpointing", False) is True:
            module.grad_checkpointing = False  # type: ignore[assignment]


def _alias(parameter: nn.Parameter) -> nn.Parameter:
    if type(parameter) is not nn.Parameter:  # quantized or sharded: only its owner knows how to copy it
        return parameter
    data = parameter.detach()
    return nn.Parameter(data.clone() if data.is_inference() else data, parameter.requires_grad)


def feature_stages(network: nn.Module) -> list[str]:
    """Return the names of the modules of timm's ``feature_info``; none for other networks."""
    info = getattr(network, "feature_info", None) or []
    return [stage["module"] for stage in getattr(info, "info", info)]


def floating_dtype(network: nn.Module) -> torch.dtype:
    """Return the type of the floating-point parameters of ``network``; float32 if it has none."""
    return next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)


def is_channels_last(network: nn.Module) -> bool:
    """Tell whether the weights of ``network`` are stored with the channels last."""
    kernels = [p for p in network.parameters() if p.ndim == 4 and not p.is_contiguous()]
    return any(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put ``network`` in evaluation mode for the duration; every module returns to its own mode.

    Modes are set one by one: some ``train()`` merges weights.
    """
    modes = [(module, module.training) for module in network.modules()]
    _evaluate(network)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
            if training and getattr(module, "attention_bias_cache", None):  # of timm's LeViT: stale after a step
                module.attention_bias_cache = {}  # type: ignore[assignment]


def _evaluate(network: nn.Module) -> nn.Module:
    for module in network.modules():
        module.training = False
    return network


def meta_copy(network: nn.Module) -> nn.Module:
    """Copy ``network`` onto the meta device without copying its weights: deepcopy finds them in the memo."""
    memo: dict[int, Any] = {}
    with torch.inference_mode(False):  # a network built for inference can be tried with gradients
        for parameter in network.parameters():
            memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
        for buffer in network.buffers():
            memo[id(buffer)] = torch.empty_like(buffer, device="meta")
        for module in network.modules():
            for tensor in _other_tensors(module):
                memo.setdefault(id(tensor), torch.empty_like(tensor, device="meta"))
        twin = copy.deepcopy(network, memo)
    _whole_passes(twin)
    return twin


def dry_run(
    network: nn.Module,
    input_size: tuple[int, int, int],
    run: Callable[[nn.Module, Tensor], Result],
    *,
    name: str | None = None,
    values: bool = False,
) -> Result:
    """Return ``run(twin, image)`` for a copy of ``network`` in evaluation mode and an image, both on the meta device.

    Nothing is computed and no activation allocated, but where that fails, as for a network that looks at values on its
    way: such a one sees a black image on the CPU, as do all if ``values`` count. ``network`` is not touched.
    ``input_size`` is ``(channels, height, width)``, ``name`` that of the network in messages. A `ValueError` says that
    it does not take such an image.
    """
    twin = _evaluate(meta_copy(network))
    image = torch.empty(1, *input_size, device="meta", dtype=floating_dtype(twin))
    try:
        with torch.no_grad():
            try:
                if not values:
                    return run(twin, image)
            except FAILURES:
                if any(parameter.is_meta for parameter in network.parameters()):
                    raise
            return run(_evaluate(private_copy(network).cpu()), torch.zeros_like(image, device="cpu"))
    except RefusedError:
        raise
    except (ValueError, *FAILURES) as error:
        raise ValueError(
            f"{name or type(network).__name__} does not take an image of {'×'.join(map(str, input_size))}: {error}; "
            "give the channels and the size (img_size) that it was built for, or other keywords"
        ) from error


def unshared(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``state`` with tensors that share memory copied, all but the first.

    Safetensors refuses shared ones, and timm's strict loading needs every name.
    """
    places: set[int] = set()
    copied = {}
    for name, tensor in state.items():
        place = tensor.untyped_storage().data_ptr()
        copied[name] = tensor.clone() if place in places else tensor
        places.add(place)
    return copied
