"""The forecast of memory against what is then measured, and where measuring would end the process."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from gsa_pytorch import GSA
from torch import nn

from foveate.benchmark import peak_memory
from foveate.nn import GlobalSelfAttention2d
from studies.bench.dense import DenseExplicit, FactoredExplicit, SoftmaxAttention2d
from studies.bench.forecast import forecast_memory
from studies.bench.workload import MODES, Workload

CPU = torch.device("cpu")
SIDE = 41


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "module",
    [
        GlobalSelfAttention2d(16, num_heads=4, feat_size=SIDE),
        GSA(16, dim_out=16, dim_key=4, heads=4, rel_pos_length=SIDE),
        FactoredExplicit("gaussian"),
        FactoredExplicit("cauchy"),
        DenseExplicit("matmul"),
        nn.Sequential(nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU()),
        SoftmaxAttention2d(16, 4),
    ],
    ids=lambda module: type(module).__name__,
)
def test_it_is_within_a_factor_of_two_or_so(module: nn.Module, mode: str, dtype: torch.dtype) -> None:
    module = copy.deepcopy(module)
    x = torch.randn(4, 16, SIDE, SIDE, dtype=dtype).contiguous(memory_format=torch.channels_last)
    state = copy.deepcopy(module.state_dict())
    forecast = forecast_memory(module, x, mode=mode, dtype=dtype)
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    call = Workload(module, x, mode=mode, dtype=dtype, network=False)
    call()
    # Convolutions in bfloat16 are computed in float32 where the processor has nothing for them.
    native = dtype == torch.float32 or torch.backends.cpu.get_cpu_capability() == "AVX512"
    converts = isinstance(module, nn.Sequential) and not native
    assert (0.2 if converts else 0.4) < forecast / peak_memory(call, CPU) < 2.5


@pytest.mark.slow
def test_of_a_network() -> None:
    network = timm.create_model("gsa_resnet_tiny", num_classes=7)
    x = torch.randn(8, 3, 40, 40)
    call = Workload(network, x, mode="step", dtype=torch.float32, network=True)
    forecast = forecast_memory(network, x, mode="step", dtype=torch.float32)
    call()
    assert 0.5 < forecast / peak_memory(call, CPU) < 2


def test_what_no_machine_holds_is_told_in_a_moment() -> None:
    x = torch.empty(1, 2, 2048, 2048)
    for mode in MODES:
        assert forecast_memory(DenseExplicit("matmul"), x, mode=mode, dtype=torch.float32) > 2048**4 * 4  # 70 TB
